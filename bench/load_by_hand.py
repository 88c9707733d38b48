"""Reads the load of `bench.load` by hand: a bare loop parses each change, and each reader has a thread, queue and lock.

It does what no reader can do without: take each message from the socket, parse it, once for all readers, and give it to
each thread in order. It bounds no memory, stores no position for a consumer, makes no event of its own for each reader,
filters nothing, and ends with the connection.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from bench import bare

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from psycopg.pq.abc import PGconn

LOOK_EVERY_MS = 100
PATIENCE_S = 60.0


class Row(NamedTuple):
    """What the loop of a reader reads of an event; all readers share it."""

    document_id: str
    full_document: RowDocument


class RowDocument(NamedTuple):
    data: dict[str, Any]


class Stats(NamedTuple):
    mode: str = "by hand"


class Queue:
    """What one thread is given."""

    def __init__(self) -> None:
        self._rows: deque[Row] = deque()
        self._unset = threading.Lock()
        self._unset.acquire()
        self._has_ended = False

    def put(self, rows: list[Row]) -> None:
        self._rows.extend(rows)
        self._wake()

    def end(self) -> None:
        self._has_ended = True
        self._wake()

    def stats(self) -> Stats:
        return Stats()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake
            self._unset.release()

    def __iter__(self) -> Iterator[Row]:
        rows = self._rows
        while True:
            self._unset.acquire()
            while rows:
                yield rows.popleft()
            if self._has_ended and not rows:  # in this order: nothing is put after the end
                return


@contextlib.contextmanager
def read_by_hand(conninfo: str, uses: list[tuple[str, Callable[[Any], object]]]) -> Iterator[list[Queue]]:
    """Let a thread of each name use every row, until the block ends."""
    queues = [Queue() for _ in uses]
    threads = [
        threading.Thread(target=_use, args=(queue, use), name=name)
        for queue, (name, use) in zip(queues, uses, strict=True)
    ]
    has_begun, ending = threading.Event(), threading.Event()
    reading = threading.Thread(target=_read, args=(conninfo, queues, has_begun, ending), name="reads by hand")
    for thread in (*threads, reading):
        thread.start()
    try:
        if not has_begun.wait(PATIENCE_S):
            raise RuntimeError("the server does not begin to send")
        yield queues
    finally:
        ending.set()
        for queue in queues:
            queue.end()
        for thread in (*threads, reading):
            thread.join()


def _use(queue: Queue, use: Callable[[Any], object]) -> None:
    for row in queue:
        use(row)


def _read(conninfo: str, queues: list[Queue], has_begun: threading.Event, ending: threading.Event) -> None:
    with bare.started(conninfo) as pgconn:
        has_begun.set()
        for rows in _bursts(pgconn, ending):
            for queue in queues:
                queue.put(rows)


def _bursts(pgconn: PGconn, ending: threading.Event) -> Generator[list[Row], None, None]:
    """Yield what has arrived, in one list."""
    readable = select.poll()
    readable.register(pgconn.socket, select.POLLIN)
    rows: list[Row] = []
    while not ending.is_set():
        size, frame = pgconn.get_copy_data(1)
        if size == 0:
            if rows:
                yield rows
                rows = []
            readable.poll(LOOK_EVERY_MS)
            pgconn.consume_input()
        elif frame[0] == ord("w"):
            message = orjson.loads(frame[25:])
            if message["action"] == "I":
                document_id, data, *_ = (column["value"] for column in message["columns"])
                rows.append(Row(document_id, RowDocument(orjson.loads(data))))
