"""Time what a change costs the reading thread, for the same changes through wal2json and pgoutput in turns.

    python -m bench.decoding

`decode` turns a message into a record. `assemble` also turns records into positioned changes, which the reading thread
does. `read` is decode plus building the row and its document, which happens in the thread that uses the event.
"""

from __future__ import annotations

import statistics
import struct
import sys
import time
from typing import TYPE_CHECKING

import psycopg

import pgdoc
from bench import throughput
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.decoding.records import RowChange, Span
from pgdoc.model.documents import Document
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.decoding.records import Images

CHANGES = 20_000
ROUNDS = 9
STEPS = ("decode", "assemble", "read")
UPDATE = 'UPDATE docs.backlog SET data = data || \'{"status": "paid"}\''


def main() -> int:
    with LocalServer() as server, pgdoc.Store(server.conninfo) as store:
        store.migrate()
        store.create_collection("backlog")
        frames = capture(server.conninfo)
    steps: dict[str, Callable[[str, list[bytes]], None]] = dict(zip(STEPS, (decode, assemble, read), strict=True))
    figures: dict[tuple[str, str], list[float]] = {(plugin, step): [] for step in STEPS for plugin in PLUGINS}
    for _ in range(ROUNDS):
        for (plugin, step), values in figures.items():
            began = time.perf_counter()
            steps[step](plugin, frames[plugin])
            values.append((time.perf_counter() - began) / (2 * CHANGES) * 1e6)
    report(figures, {plugin: sum(map(len, each)) for plugin, each in frames.items()})
    return 0


def capture(conninfo: str) -> dict[str, list[bytes]]:
    """Return what each plugin sends for inserts, 100 per transaction, and one update of all rows."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for plugin in PLUGINS:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [f"bench_{plugin}", plugin])
        for n in range(0, CHANGES, throughput.A_TRANSACTION):
            connection.execute(throughput.FILL, (n + 1, n + throughput.A_TRANSACTION))
        connection.execute(UPDATE)
        return {plugin: messages(connection, plugin) for plugin in PLUGINS}


def messages(connection: psycopg.Connection, plugin: str) -> list[bytes]:
    options = [word for option in PLUGINS[plugin].options("docs").items() for word in option]
    places = ", ".join(["%s"] * len(options))
    query = f"SELECT (lsn - '0/0')::bigint, data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, {places})"
    rows = connection.execute(query.encode(), [f"bench_{plugin}", *options]).fetchall()
    return [b"w" + struct.pack(">QQq", lsn, lsn, 0) + bytes(data) for lsn, data in rows]


def decode(plugin: str, frames: list[bytes]) -> None:
    decoder = PLUGINS[plugin].decoder("docs")
    for start in range(0, len(frames), 64):
        decoder.decode(frames[start : start + 64])


def assemble(plugin: str, frames: list[bytes]) -> None:
    decoder = PLUGINS[plugin].decoder("docs")
    assembler = Assembler(0, Registry("docs", [Span(_oid_of(plugin, frames), "docs", "backlog", 0, None)]))
    for start in range(0, len(frames), 64):
        assembler.feed(decoder.decode(frames[start : start + 64]))


def _oid_of(plugin: str, frames: list[bytes]) -> int:
    """Return the oid by which the plugin sends the collection; 1 if it sends its name."""
    decoder = PLUGINS[plugin].decoder("docs")
    return next(record.oid or 1 for record in decoder.decode(frames[:64]) if isinstance(record, RowChange))


def read(plugin: str, frames: list[bytes]) -> None:
    for record in PLUGINS[plugin].decoder("docs").decode(frames):
        if isinstance(record, RowChange):
            document(record.images())


def document(images: Images) -> None:
    row = images.after
    text = Document.from_text(row["id"], row["data"], row["version"], row["created_at"], row["updated_at"])
    text.data["total"]


def report(figures: dict[tuple[str, str], list[float]], sizes: dict[str, int]) -> None:
    print(f"microseconds per change: {2 * CHANGES:,} changes, half inserts and half updates, median of {ROUNDS} rounds")
    print(f"{'':20} {'decode':>10} {'decode and assemble':>20} {'decode and read':>16} {'bytes per change':>17}")
    medians = {key: statistics.median(values) for key, values in figures.items()}
    for plugin in PLUGINS:
        values = [medians[plugin, step] for step in STEPS]
        print(f"{plugin:20} {values[0]:10.2f} {values[1]:20.2f} {values[2]:16.2f} {sizes[plugin] / 2 / CHANGES:17.0f}")
    values = [medians["pgoutput", step] / medians["wal2json", step] for step in STEPS]
    bytes_ratio = sizes["pgoutput"] / sizes["wal2json"]
    print(f"{'pgoutput / wal2json':20} {values[0]:10.2f} {values[1]:20.2f} {values[2]:16.2f} {bytes_ratio:17.2f}")


if __name__ == "__main__":
    sys.exit(main())
