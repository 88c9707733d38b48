"""Reads the registry of collections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.changes.life import Existence
from pgdoc.changes.registry import Registry
from pgdoc.decoding.records import Span
from pgdoc.decoding.registry_rows import read_partitions, read_shape
from pgdoc.errors import RegistryUnbound, ServerUnreachable
from pgdoc.replication.connection import connect, map_replication_error, quote_literal
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.replication.source import Source

_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.005
_STANDBY_S = 60.0


def fetch_registry(connection: psycopg.Connection[Any], source: Source) -> Registry:
    """Read the registry, for a reader whose start is already settled: later changes of it come in the WAL.

    A transaction that committed before the start may not be visible yet, such as one that waits for a synchronous
    standby. While there may be one, the registry is read again for a table that is not in it.

    Raises:
        RegistryUnbound: the registry belongs to another database.
    """
    is_incomplete = _is_registering(connection)  # asked first: what it does not see has become visible
    identity = connection.execute(statement("replication", "identity")).fetchone()
    assert identity is not None  # noqa: S101
    if not identity.is_bound:
        raise RegistryUnbound(
            "the registry of collections belongs to another database: this one was upgraded, is a copy, or was "
            "restored from a dump; as the catalog's owner, run `pgdoc upgrade finish` if it was prepared for an "
            "upgrade, else `pgdoc init`"
        )
    return Registry(
        source.schema,
        _fetch_spans(connection, source.schema),
        messages_until=identity.messages_until,
        look_again=(lambda: _look_again(source)) if is_incomplete else None,
    )


def wait_for_registrations(connection: psycopg.Connection[Any]) -> None:
    """Return when every table that was registered before the call can be found in the registry.

    A transaction that PostgreSQL shows as running may have committed, and become visible within a moment: this waits up
    to a second. One that waits for a synchronous standby has committed, too: this waits as long as it does, since
    nobody can write to the table before. The others have not committed, and will report the table in the WAL.

    Raises:
        ServerUnreachable: a transaction waits for its standby for too long.
    """
    began = time.monotonic()
    while (row := connection.execute(statement("replication", "uncertain")).fetchone()) and row.is_uncertain:
        waited_s = time.monotonic() - began
        if waited_s > (_STANDBY_S if row.is_waiting else _SETTLE_S):
            if not row.is_waiting:
                return
            raise ServerUnreachable(
                "a transaction that adds a table waits for a synchronous standby: check the standby"
            )
        time.sleep(_SETTLE_POLL_S)


def read_existence(commit_lsn: int, rows: Iterable[Sequence[Any]]) -> Existence:
    """Make an `Existence` of the rows of `pgdoc.existed`."""
    is_there, was_there = {}, {}
    for name, is_now, was in rows:
        is_there[name], was_there[name] = is_now, was
    return Existence(commit_lsn, is_there, was_there)


def follow_tables(connection: psycopg.Connection[Any]) -> None:
    """Record in the registry what no event trigger has followed; on a connection for plain SQL."""
    connection.execute(statement("replication", "follow_tables"))


def _look_again(source: Source) -> tuple[list[Span], bool]:
    with connect(source.conninfo, replication=False, purpose="registry") as plain:
        try:
            return _fetch_spans_after(plain, source.schema)
        except psycopg.Error as exc:
            raise map_replication_error(exc, plain) from exc


def _fetch_spans_after(connection: psycopg.Connection[Any], schema: str) -> tuple[list[Span], bool]:
    is_incomplete = _is_registering(connection)
    return _fetch_spans(connection, schema), is_incomplete


def _fetch_spans(connection: psycopg.Connection[Any], schema: str) -> list[Span]:
    query = statement("replication", "registry").format(schema=quote_literal(schema))
    return [
        Span(
            row.oid,
            row.schema_name,
            row.name,
            row.since,
            row.until,
            read_shape(row.key, row.document, row.columns) if row.kind == "table" else None,
            read_partitions(row.partitions),
        )
        for row in connection.execute(query).fetchall()
    ]


def _is_registering(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(statement("replication", "registering")).fetchone()
    return bool(row and row.is_registering)
