"""The baseline for streams: psycopg's replication connection, wal2json and orjson in one loop, and nothing else."""

from __future__ import annotations

import contextlib
import secrets
import select
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from pgdoc.decoding.plugins import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from psycopg.pq.abc import PGconn


def changes(
    conninfo: str, schema: str = "docs", *, source: str | None = None, at: str = "0/0"
) -> Generator[Any, None, None]:
    """Yield `None` when the stream has started, then the parsed document of each inserted or updated row."""
    received = messages(conninfo, schema, source=source, at=at)
    with contextlib.closing(received):
        yield next(received)
        for _, message in received:
            if message["action"] in "IU":
                yield orjson.loads(message["columns"][1]["value"])


def messages(
    conninfo: str, schema: str = "docs", *, source: str | None = None, at: str = "0/0"
) -> Generator[Any, None, None]:
    """Yield `None` when the stream has started, then the LSN of each of wal2json's messages and the parsed message.

    Args:
        conninfo: The server to connect to.
        schema: The schema whose tables are read.
        source: A slot to copy, so that the stream starts at its position; without it, the stream starts now.
        at: An LSN to start at, if it lies beyond that position.
    """
    with started(conninfo, schema, source=source, at=at) as pgconn:
        readable = select.poll()
        readable.register(pgconn.socket, select.POLLIN)
        yield None
        while True:
            size, frame = pgconn.get_copy_data(1)
            if size == 0:
                readable.poll()
                pgconn.consume_input()
            elif frame[0] == ord("w"):
                yield int.from_bytes(frame[1:9], "big"), orjson.loads(frame[25:])


def frames(pgconn: PGconn) -> Generator[bytes | None, None, None]:
    """Yield what the server sends, and `None` before waiting for more."""
    readable = select.poll()
    readable.register(pgconn.socket, select.POLLIN)
    while True:
        size, frame = pgconn.get_copy_data(1)
        if size:
            yield bytes(frame)
            continue
        yield None
        readable.poll()
        pgconn.consume_input()


@contextlib.contextmanager
def started(
    conninfo: str, schema: str = "docs", *, source: str | None = None, plugin: str = "wal2json", at: str = "0/0"
) -> Iterator[PGconn]:
    """Connect, and start to receive the plugin's messages. The server does not mind that nothing is confirmed."""
    connection = psycopg.connect(conninfo, autocommit=True, replication="database", options="-c wal_sender_timeout=0")
    with contextlib.closing(connection):
        slot = f"bench_{secrets.token_hex(4)}"
        connection.execute(make_slot(slot, source, plugin).encode())
        options = PLUGINS[plugin].options(schema)
        listed = ", ".join(f"\"{name}\" '{value}'" for name, value in options.items())
        pgconn = connection.pgconn
        pgconn.exec_(f"START_REPLICATION SLOT {slot} LOGICAL {at} ({listed})".encode())
        pgconn.nonblocking = 1
        yield pgconn


def make_slot(slot: str, source: str | None, plugin: str = "wal2json") -> str:
    """Return the command that creates a temporary slot at the position of `source`, or at the end of the WAL."""
    if source:
        return f"SELECT pg_copy_logical_replication_slot('{source}', '{slot}', true, '{plugin}')"
    return f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL {plugin}"
