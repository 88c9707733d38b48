"""Reads the registry of collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.changes.life import Existence
from pgdoc.changes.registry import Registry
from pgdoc.decoding.records import Span
from pgdoc.decoding.registry_rows import read_shape
from pgdoc.errors import RegistryUnbound
from pgdoc.replication.connection import connect, map_replication_error, quote_literal
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.replication.source import Source


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
            "the registry of collections belongs to another database: this one is a copy, or was restored from a "
            "dump; run `pgdoc init` as the catalog's owner"
        )
    return Registry(
        source.schema,
        _fetch_spans(connection, source.schema),
        messages_until=identity.messages_until,
        look_again=(lambda: _look_again(source)) if is_incomplete else None,
    )


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
        )
        for row in connection.execute(query).fetchall()
    ]


def _is_registering(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(statement("replication", "registering")).fetchone()
    return bool(row and row.is_registering)
