"""The highest ratio to pg_recvlogical that one interpreter allows a loop over a backlog, beside what pgdoc reaches.

    python -m bench ceiling [ROUNDS]

The thread that reads the socket and the one that uses the events share Python's interpreter, so that the CPU time of
both counts: a rate can't be higher than one change in that time, as pg_recvlogical's can't be higher than one change in
the CPU time of its walsender. The second time divided by the first is the ratio that the interpreter allows. Other work
on the machine makes both longer. What was reached needs a quiet machine. The loops by hand read the same backlog:

- received: psycopg hands each message over, and nothing is done with it;
- in one thread: dicts of fields, without a check and without an object (`bench.reading_by_hand`);
- as the contract says: one thread reads for all, looks whose row it is and whether it has the document before the
  change, gives each change its position, and hands it to the stream that wants it through a bounded queue; in the
  other, the stream's loop gets each once, as an event whose fields have what the contract says
  (`bench.reading_by_contract`). It filters nothing, reconnects to nothing, has no snapshots, and nothing ends;
- by hand in pgdoc's stream: pgdoc's stream, and the same event by hand for each change that it delivers.

A CPU time is that of the cheapest round, in microseconds for a change; a ratio that was reached is the median of all.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from bench import bare, rates
from bench.arguments import parser_of, positive
from bench.counted import IDS
from bench.harness import PLUGINS, started
from bench.reading_by_contract import READERS, EventByHand
from bench.reading_by_hand import HANDS, fields_by_hand, json_by_hand
from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.events import change_of, from_change
from pgdoc.decoding.frames import PAYLOAD, iso_time, unpack_lsn
from pgdoc.decoding.records import RowChange
from pgdoc.model.positions import BEFORE_ALL, ROW
from pgdoc.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from bench.harness import Bench
    from bench.rates import Backlog
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.positions import RawPosition

    Way = Callable[[], float | None]

ROUNDS = 5
LOOK_EVERY_S = 0.001
CHANGES = 50_000
A_BURST = 256
MOST_CHANGES, MOST_BYTES = 1_000, 64 << 20
USES = {"all fields read": fields_by_hand, "to_json()": json_by_hand}
EVENT_USES: dict[str, Callable[[Any], object]] = {
    "all fields read": rates.read_all_fields,
    "to_json()": EventByHand.to_json,
}


class Measured(NamedTuple):
    """Microseconds for a change; CPU is that of this process or, for pg_recvlogical, of its walsender."""

    wall: float
    cpu: float


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("rounds", type=positive, nargs="?", default=ROUNDS, help=f"by default {ROUNDS}")
    parser.add_argument("--changes", type=positive, default=CHANGES, help=f"by default {CHANGES:,}")
    arguments = parser.parse_args()
    with started(quick=True, most_rounds=arguments.rounds) as bench:
        for plugin in PLUGINS:
            report(plugin, measure(bench, plugin, arguments.rounds, arguments.changes))
    return 0


def measure(bench: Bench, plugin: str, rounds: int, changes: int) -> dict[str, list[Measured]]:
    with rates.backlog(bench, changes) as waiting:
        ways = ways_of(waiting, plugin)
        found: dict[str, list[Measured]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                began, cpu = time.perf_counter(), time.process_time()
                server_s = way()
                took = time.perf_counter() - began, server_s or time.process_time() - cpu
                found[name].append(Measured(*(1e6 * each / waiting.changes for each in took)))
    return found


def receive(waiting: Backlog, plugin: str) -> float:
    """Let pg_recvlogical read the backlog; return the seconds of CPU of its walsender, `nan` if that was too short."""
    used: list[float] = []
    has_ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(waiting, used, has_ended))
    watching.start()
    try:
        rates.receive(waiting, plugin)
    finally:
        has_ended.set()
        watching.join()
    return used[-1] if used else math.nan


def _watch(waiting: Backlog, used: list[float], has_ended: threading.Event) -> None:
    query = "SELECT pid FROM pg_stat_replication WHERE application_name = %s"
    with waiting.site.connect() as connection:
        while (row := connection.execute(query, [rates.RECEIVE]).fetchone()) is None:
            if has_ended.wait(LOOK_EVERY_S):
                return
    path = Path(f"/proc/{row[0]}/schedstat")
    with contextlib.suppress(OSError):  # it has ended
        while True:
            used.append(int(path.read_text().split()[0]) / 1e9)
            time.sleep(LOOK_EVERY_S)


def ways_of(waiting: Backlog, plugin: str) -> dict[str, Way]:
    ways: dict[str, Way] = {
        rates.RECEIVE: partial(receive, waiting, plugin),
        "received": partial(in_one_thread, waiting, plugin, None),
        "fields untouched, as the contract says": partial(as_the_contract_says, waiting, plugin, rates.touch_nothing),
        "fields untouched, pgdoc": partial(rates.read, waiting, plugin, rates.touch_nothing),
    }
    for name, by_hand in USES.items():
        ways[f"{name}, in one thread"] = partial(in_one_thread, waiting, plugin, by_hand)
        ways[f"{name}, as the contract says"] = partial(as_the_contract_says, waiting, plugin, EVENT_USES[name])
        ways[f"{name}, by hand in pgdoc's stream"] = partial(rates.read, waiting, plugin, by_hand_of(plugin, name))
        ways[f"{name}, pgdoc"] = partial(rates.read, waiting, plugin, rates.USES[name])
    return ways


def by_hand_of(plugin: str, name: str) -> Callable[[ChangeEvent], object]:
    """Return what reads an event by hand of the change of pgdoc's event."""
    use, reader = EVENT_USES[name], READERS[plugin]
    return lambda event: use(EventByHand(reader, change_of(event), IDS))


def in_one_thread(waiting: Backlog, plugin: str, use: Callable[[Any, Change], object] | None) -> None:
    hand = HANDS[plugin]
    left = waiting.changes
    with contextlib.closing(bursts(waiting, plugin)) as received:
        for changes in received:
            left -= len(changes)
            if use is not None:
                for change in changes:
                    use(hand, change)
            if left <= 0:
                return


def bursts(waiting: Backlog, plugin: str) -> Generator[list[Change], None, None]:
    """Yield the inserts and updates that have arrived, each with its position and transaction."""
    make, read = tuple.__new__, READERS[plugin].row
    transaction, commit_lsn, last_lsn, ordinal = TransactionInfo(0, "", None), 0, 0, 0
    since = 1  # from the registry
    at = PAYLOAD + (len('{"action":"') if plugin == "wal2json" else 0)
    begin, kinds, has_before = ord("B"), {ord("I"): "I", ord("U"): "U"}, HAVE_BEFORE[plugin]
    address, address_at = b"\0", 0  # where the last row names its table: the next mostly has the same there
    changes: list[Change] = []
    with bare.started(waiting.site.conninfo, source=waiting.slot, plugin=plugin) as pgconn:
        for frame in bare.frames(pgconn):
            if frame is None:
                if changes:
                    yield changes
                changes = []
                continue
            action = frame[at] if len(frame) > at else 0
            kind = kinds.get(action)
            if kind is not None:
                lsn = unpack_lsn(frame, 1)[0]
                ordinal = ordinal + 1 if lsn == last_lsn else 0
                last_lsn = lsn
                if not frame.startswith(address, address_at):
                    address, address_at = ADDRESSES[plugin](frame)
                if lsn < since:
                    continue  # the table was no collection yet
                is_complete = kind == "I" or has_before(frame)
                row = make(RowChange, (lsn, kind, "orders", frame, is_complete, read, 0))
                changes.append(make(Change, ((commit_lsn, lsn, ROW, ordinal), transaction, row)))
                if len(changes) == A_BURST:
                    yield changes
                    changes = []
            elif action == begin:
                commit_lsn, transaction = BEGINS[plugin](frame)


def wal2json_begin(frame: bytes) -> tuple[int, TransactionInfo]:
    fields = orjson.loads(frame[PAYLOAD:])
    high, low = fields["lsn"].split("/")
    return int(high, 16) << 32 | int(low, 16), TransactionInfo(fields["xid"], fields["timestamp"], None)


def pgoutput_begin(frame: bytes) -> tuple[int, TransactionInfo]:
    commit_lsn, time_us, xid = (
        int.from_bytes(frame[PAYLOAD + 1 :][a:b], "big") for a, b in ((0, 8), (8, 16), (16, 20))
    )
    return commit_lsn, TransactionInfo(xid, iso_time(time_us), None)


def wal2json_address(frame: bytes) -> tuple[bytes, int]:
    start = frame.index(b'"schema":"')
    return frame[start : frame.index(b'":[{', start)], start


HAVE_BEFORE: dict[str, Callable[[bytes], bool]] = {
    "wal2json": lambda frame: frame.rfind(b'"identity":[') > 0,
    "pgoutput": lambda frame: frame[PAYLOAD + 5] == ord("O"),
}
ADDRESSES: dict[str, Callable[[bytes], tuple[bytes, int]]] = {
    "wal2json": wal2json_address,
    "pgoutput": lambda frame: (frame[PAYLOAD + 1 : PAYLOAD + 5], PAYLOAD + 1),
}
BEGINS = {"wal2json": wal2json_begin, "pgoutput": pgoutput_begin}


class StreamByHand:
    """A bounded queue between two threads, and the iterator over its events."""

    def __init__(self, plugin: str) -> None:
        self._plugin, self._lock = READERS[plugin], threading.Lock()
        self._queue: deque[tuple[list[Change], int]] = deque()
        self._count = self._bytes = 0
        self._is_awaited, self._is_full = False, False
        self._filled, self._emptied = Wakeup(), Wakeup()
        self._batch: list[Change] = []
        self._next = 0
        self.last: RawPosition = BEFORE_ALL
        self.delivered = 0
        self._wanted, self._put_to = {"orders"}, BEFORE_ALL
        self._is_closed = False
        self._snapshot = self._ending = None

    def put(self, changes: list[Change]) -> None:
        if {change.row.table for change in changes} != self._wanted or changes[0].position <= self._put_to:
            changes = [each for each in changes if each.row.table in self._wanted and each.position > self._put_to]
        if changes:
            self._put(changes)
            self._put_to = changes[-1].position

    def _put(self, changes: list[Change]) -> None:
        size_bytes = sum([len(change.row.message) for change in changes])
        while True:
            with self._lock:
                self._is_full = self._count > MOST_CHANGES or self._bytes > MOST_BYTES
                if not self._is_full:
                    self._queue.append((changes, size_bytes))
                    self._count += len(changes)
                    self._bytes += size_bytes
                    if self._is_awaited:
                        self._is_awaited = False
                        self._filled.set()
                    return
            self._emptied.wait()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventByHand | ChangeEvent:
        while True:
            batch, index = self._batch, self._next
            if self._is_closed or self._ending is not None or self._snapshot is not None:
                raise StopIteration
            if index == len(batch):
                self._take()
                continue
            change = batch[index]
            position, _, row = change
            if position <= self.last:
                self._next = index + 1
                continue
            if position[2] != ROW or row.kind not in "IU" or "." in row.table or not row.complete:
                event: EventByHand | ChangeEvent = from_change(change, IDS)
            else:
                event = EventByHand(self._plugin, change, IDS)
            # Plain assignments in one run: an interrupt loses no event.
            self.last = position
            self.delivered += 1
            self._next = index + 1
            return event

    def _take(self) -> None:
        while True:
            with self._lock:
                if self._queue:
                    self._batch, size_bytes = self._queue.popleft()
                    self._next = 0
                    self._count -= len(self._batch)
                    self._bytes -= size_bytes
                    if self._is_full:
                        self._emptied.set()
                    return
                self._is_awaited = True
            self._filled.wait()


def as_the_contract_says(waiting: Backlog, plugin: str, use: Callable[[Any], object]) -> None:
    stream = StreamByHand(plugin)

    def read() -> None:
        left = waiting.changes
        with contextlib.closing(bursts(waiting, plugin)) as received:
            for changes in received:
                stream.put(changes)
                left -= len(changes)
                if left <= 0:
                    return

    reading = threading.Thread(target=read)
    reading.start()
    for _, event in zip(range(waiting.changes), stream, strict=False):
        use(event)
    reading.join()


def report(plugin: str, measured: dict[str, list[Measured]]) -> None:
    received = measured[rates.RECEIVE]
    server = min(each.cpu for each in received)
    print(f"{plugin}: the walsender of pg_recvlogical takes {server:.2f} us of CPU for a change; to pg_recvlogical:")
    print(f"{'':44}{'us of CPU':>11}{'allows':>9}{'reached':>9}")
    for name, rounds in measured.items():
        if name == rates.RECEIVE:
            continue
        cpu = min(each.cpu for each in rounds)
        reached = statistics.median(base.wall / each.wall for base, each in zip(received, rounds, strict=True))
        print(f"{name:44}{cpu:11.2f}{server / cpu:9.2f}{reached:9.2f}")


if __name__ == "__main__":
    sys.exit(main())
