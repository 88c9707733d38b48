"""Time the snapshot of a stream against a COPY of the same rows to Python, quiet and beside writers, in turns.

    python -m bench.snapshot [DOCUMENTS]

DOCUMENTS is 1,000,000 by default, of 200 bytes each. The COPY returns all columns of the collection in any order. Its
rows are split, escapes are undone, and the data is loaded with orjson; "COPY, only received" drops each block as it
comes, and `rows()` also makes the version and the times Python values. "COPY, merged by hand" makes an object of each
row, in the order of the ids, unless a change has replaced the row: the least that any snapshot between changes does.
"COPY, to events by hand" makes what the contract of a stream says, and nothing else: an iterator that notes each event
as the last one, which an interrupt does not lose and a token or `ack` may ask for; an event that knows its number, for
its token; a document with version and times, made on first access; its data, decoded on first access and once, after a
search for the numbers that orjson would round; and errors that name the document. It reads one COPY in one transaction,
which a large table would keep open for long, and holds a connection. A stream's events are read up to the id and the
data; "as JSON" only takes `to_json()`.

The writers are two processes that each update a document every ten milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import orjson
import psycopg

import pgdoc
from bench.arguments import parser_of, positive
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.abc import Buffer

DOCUMENTS = 1_000_000
ROUNDS = 3
WRITERS = 2
PAUSE_S = 0.01
ORDERED = b'COPY (SELECT id, data, version, created_at, updated_at FROM docs.orders ORDER BY id COLLATE "C") TO STDOUT'
COPY = b"COPY (SELECT id, data, version, created_at, updated_at FROM docs.orders) TO STDOUT"
FILL = b"""
INSERT INTO docs.orders (id, data) SELECT 'o-' || lpad(n::text, 7, '0'), jsonb_build_object('number', n,
  'status', 'new', 'total', n * 1.25, 'customer', jsonb_build_object('name', md5(n::text), 'city', 'Reykjav\xc3\xadk'),
  'note', repeat('x', 60)) FROM generate_series(0, %s) n
"""
DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
LONG = b"0" * 19
REFERENCE = "COPY, rows split, data loaded"


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("documents", type=positive, nargs="?", default=DOCUMENTS, help=f"by default {DOCUMENTS:,}")
    documents: int = parser.parse_args().documents
    with LocalServer() as server, pgdoc.Store(server.conninfo) as store:
        store.migrate()
        store.create_collection("orders")
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(FILL, [documents - 1])
            connection.execute("VACUUM (FREEZE, ANALYZE) docs.orders")
        peers: dict[str, Callable[[], int]] = {
            REFERENCE: lambda: copy(server.conninfo, loads=True),
            "COPY, only received": lambda: copy(server.conninfo, loads=False),
            "COPY, psycopg's rows()": lambda: copy_rows(server.conninfo),
            "COPY, merged by hand": lambda: copy_merged(server.conninfo),
            "COPY, to events by hand": lambda: copy_to_events(server.conninfo),
            "snapshot": lambda: read(store, documents),
            "snapshot, in batches": lambda: read_batches(store, documents),
            "snapshot, as JSON": lambda: read_json(store, documents),
            "snapshot, async": lambda: asyncio.run(read_async(server.conninfo, documents)),
        }
        for writers in (0, WRITERS):
            with writing(server.conninfo, documents, writers):
                report(documents, writers, measure(peers, documents))
    return 0


def measure(peers: dict[str, Callable[[], int]], documents: int) -> dict[str, list[tuple[float, float]]]:
    """Return seconds, and seconds of this process's CPU, of each round."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            if (count := peer()) != documents:
                raise RuntimeError(f"{name}: {count:,} documents")
            figures[name].append((time.perf_counter() - began, time.process_time() - began_cpu))
    return figures


def copy(conninfo: str, *, loads: bool) -> int:
    count = 0
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor, cursor.copy(COPY) as blocks:
        for block in blocks:  # a row each
            count += 1
            if loads:
                row = bytes(block)
                _, data, *_ = (row.replace(b"\\\\", b"\\") if b"\\" in row else row).split(b"\t")
                orjson.loads(data)
    return count


class Row:
    """What the least event of a snapshot holds."""

    __slots__ = ("columns", "document_id", "text")

    def __init__(self, document_id: str, text: bytes, columns: list[bytes]) -> None:
        self.document_id, self.text, self.columns = document_id, text, columns


def copy_merged(conninfo: str) -> int:
    ids: set[str] = set()
    replaced: set[str] = set()  # by changes that came meanwhile; here none
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor, cursor.copy(ORDERED) as blocks:
        for block in blocks:
            row = bytes(block)
            key, data, *columns = (row.replace(b"\\\\", b"\\") if b"\\" in row else row).split(b"\t")
            event = Row(key.decode(), data, columns)
            if event.document_id not in replaced:
                orjson.loads(event.text)
                ids.add(event.document_id)
    return len(ids)


class DocumentByHand:
    """A document that decodes its data on first access."""

    __slots__ = ("_columns", "_data", "_text", "id")

    def __init__(self, document_id: str, text: bytes, columns: list[bytes]) -> None:
        self.id, self._text, self._columns = document_id, text, columns
        self._data: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        if self._data is None:
            try:
                has_long = self._text.translate(DIGITS_ALIKE).find(LONG) >= 0
                data: dict[str, Any] = json.loads(self._text) if has_long else orjson.loads(self._text)
            except ValueError as exc:
                raise pgdoc.UnreadableDocument(f"document {self.id!r}") from exc
            self._data = data
        return self._data


class EventByHand:
    """An event that makes its document on first access."""

    __slots__ = ("_columns", "_document", "_text", "document_id", "event_type", "number")

    def __init__(self, number: int, document_id: str, text: bytes, columns: list[bytes]) -> None:
        self.event_type, self.number, self.document_id = "snapshot", number, document_id
        self._text, self._columns = text, columns
        self._document: DocumentByHand | None = None

    @property
    def full_document(self) -> DocumentByHand:
        if self._document is None:
            self._document = DocumentByHand(self.document_id, self._text, self._columns)
        return self._document


class StreamByHand:
    """Notes how far it has come with each event."""

    def __init__(self, blocks: Iterator[Buffer]) -> None:
        self._blocks, self.delivered = blocks, 0
        self.last: EventByHand | None = None
        self.replaced: set[str] = set()  # by changes that came meanwhile; here none

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EventByHand:
        while True:
            row = bytes(next(self._blocks))
            key, data, *columns = (row.replace(b"\\\\", b"\\") if b"\\" in row else row).split(b"\t")
            document_id = key.decode()
            if document_id not in self.replaced:
                self.last = event = EventByHand(self.delivered + 1, document_id, data, columns)
                self.delivered += 1
                return event


def copy_to_events(conninfo: str) -> int:
    ids: set[str | None] = set()
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor, cursor.copy(ORDERED) as blocks:
        for event in StreamByHand(iter(blocks)):
            if event.event_type == "snapshot":
                ids.add(use(event))
    return len(ids)


def copy_rows(conninfo: str) -> int:
    count = 0
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor, cursor.copy(COPY) as blocks:
        blocks.set_types(["text", "text", "int8", "timestamptz", "timestamptz"])
        for _, data, *_ in blocks.rows():
            count += 1
            orjson.loads(data)
    return count


def read(store: pgdoc.Store, documents: int) -> int:
    ids: set[str | None] = set()
    with store["orders"].watch(snapshot=True) as stream:
        for event in stream:
            if event.event_type == "snapshot":
                ids.add(use(event))
            if len(ids) == documents:
                break
    return len(ids)


def read_batches(store: pgdoc.Store, documents: int) -> int:
    ids: set[str | None] = set()
    with store["orders"].watch(snapshot=True) as stream:
        while len(ids) < documents:
            ids.update(use(event) for event in stream.next_batch() if event.event_type == "snapshot")
    return len(ids)


def read_json(store: pgdoc.Store, documents: int) -> int:
    count = 0
    with store["orders"].watch(snapshot=True) as stream:
        for event in stream:
            if event.event_type == "snapshot":
                event.to_json()
                count += 1
            if count == documents:
                break
    return count


async def read_async(conninfo: str, documents: int) -> int:
    ids: set[str | None] = set()
    async with pgdoc.AsyncStore(conninfo) as store, store["orders"].watch(snapshot=True) as stream:
        async for event in stream:
            if event.event_type == "snapshot":
                ids.add(use(event))
            if len(ids) == documents:
                break
    return len(ids)


def use(event: pgdoc.ChangeEvent | EventByHand) -> str | None:
    if event.full_document:
        event.full_document.data["number"]
    return event.document_id


@contextlib.contextmanager
def writing(conninfo: str, documents: int, writers: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write, args=(conninfo, documents, n), daemon=True) for n in range(writers)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def write(conninfo: str, documents: int, seed: int) -> None:
    dice = random.Random(seed)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while True:
            params: list[Any] = [f"o-{dice.randrange(documents):07d}"]
            connection.execute('UPDATE docs.orders SET data = data || \'{"status": "paid"}\' WHERE id = %s', params)
            time.sleep(PAUSE_S)


def report(documents: int, writers: int, figures: dict[str, list[tuple[float, float]]]) -> None:
    beside = f"beside {writers} writers" if writers else "quiet"
    print(
        f"{documents:,} documents, {beside}, median of {ROUNDS} rounds; the ratio is the median of the rounds' ratios"
    )
    print(f"{'':32}{'seconds':>9}{'ratio':>7}{'CPU us a document':>19}{'ratio':>7}")
    for name, values in figures.items():
        seconds, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        times, cpus = (
            statistics.median(ours[part] / base[part] for ours, base in zip(values, figures[REFERENCE], strict=True))
            for part in (0, 1)
        )
        print(f"{name:32}{seconds:9.2f}{times:7.2f}{cpu / documents * 1e6:19.2f}{cpus:7.2f}")


if __name__ == "__main__":
    sys.exit(main())
