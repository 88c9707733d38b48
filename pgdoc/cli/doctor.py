"""`pgdoc doctor`: what is wrong on a server, or will be, each with what was found and what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

import pgdoc
from pgdoc.cli.render import render_bytes, render_delay
from pgdoc.database.catalog import FIND_REVISION, check_revision, check_server
from pgdoc.database.errors import connection_error, one_line
from pgdoc.errors import PgdocError
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import Store

__all__ = ["Finding", "examine"]

_SCHEMA: Final = "docs"
_LONG_S: Final = 60.0
_MUCH_WAL: Final = 1 << 30
_FEW: Final = 2
_CONNECT_S: Final = 10
_OF_A_CONSUMER: Final = "pgdoc_"


class Finding(NamedTuple):
    """One line of the answer: `verdict` is `ok`, `warn` (it will go wrong, or may) or `wrong`."""

    verdict: str
    subject: str
    text: str


def examine(dsn: str) -> Iterator[Finding]:
    """Look at everything, and go on where one look fails."""
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_S, row_factory=namedtuple_row)
    except psycopg.Error as exc:
        yield Finding("wrong", "connection", str(connection_error(exc)))
        return
    with connection:
        for subject, look in _AT_SERVER.items():
            yield from _looked(subject, look, connection)
        catalog = list(_looked("catalog", _catalog, connection))
        yield from catalog
        if any(finding.verdict == "wrong" for finding in catalog):
            return
        for subject, look in _AT_TABLES.items():
            yield from _looked(subject, look, connection)
    with pgdoc.Store(dsn, schema=_SCHEMA) as store:
        for subject, ask in _AT_STORE.items():
            yield from _looked(subject, ask, store)


def _looked(subject: str, look: Callable[[Any], Iterator[tuple[str, str]]], at: Any) -> Iterator[Finding]:
    try:
        for verdict, text in look(at):
            yield Finding(verdict, subject, text)
    except PgdocError as exc:
        yield Finding("wrong", subject, str(exc))
    except psycopg.Error as exc:
        yield Finding("wrong", subject, f"could not be looked at: {one_line(exc)}")


def _rows(connection: psycopg.Connection[Any], file: str, name: str, *params: Any) -> list[Any]:
    return connection.execute(statement(file, name).encode(), params or None).fetchall()


def _server(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    encoding = connection.info.parameter_status("server_encoding")
    check_server(connection.info.server_version, encoding)
    (found,) = _rows(connection, "doctor", "server")
    yield "ok", f"PostgreSQL {found.version}, {encoding}, database {connection.info.dbname}"


def _replication(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    (found,) = _rows(connection, "replication", "preflight")
    if found.in_recovery:
        yield "wrong", "the server is a standby (in recovery): use the primary"
    if found.wal_level != "logical":
        yield "wrong", f"wal_level is {found.wal_level}: set it to logical, and restart the server"
    if not found.may_replicate:
        yield "wrong", f'role "{found.role}" may not replicate: ALTER ROLE "{found.role}" REPLICATION'
    for what, used, most, setting in (
        ("replication slots", found.slots, found.max_slots, "max_replication_slots"),
        ("walsenders", found.walsenders, found.max_walsenders, "max_wal_senders"),
    ):
        free = most - used
        verdict = "wrong" if free <= 0 else "warn" if free <= _FEW else "ok"
        cure = "" if verdict == "ok" else f": raise {setting}, and restart the server"
        yield verdict, f"{free} of {most} {what} free{cure}"


def _disk(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    (found,) = _rows(connection, "doctor", "server")
    if found.keep_size == "-1":
        yield (
            "warn",
            "max_slot_wal_keep_size is unlimited, so that a slot nobody reads can fill the disk: set it, to 10GB say",
        )
    else:
        yield "ok", f"slots may hold back {found.keep_size} of WAL"


def _slots(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    for slot in _rows(connection, "doctor", "slots"):
        if slot.wal_status == "lost":
            if not slot.name.startswith(_OF_A_CONSUMER):  # of these more is said where the consumers are
                drop = f"SELECT pg_drop_replication_slot('{slot.name}')"
                yield "warn", f"{slot.name} has lost its WAL, and is of no use any more: {drop}"
        elif (slot.retained or 0) > _MUCH_WAL:
            yield "warn", f"{slot.name} holds back {render_bytes(slot.retained)} of WAL: {_what_to_do(slot.name)}"


def _what_to_do(slot: str) -> str:
    if slot.startswith(_OF_A_CONSUMER):
        return "read on with its consumer, or drop that"
    return "streams read on from it; `Store.set_history` says how much is kept"


def _transactions(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    for found in _rows(connection, "doctor", "blockers"):
        if found.gid is not None:
            age = render_delay(timedelta(seconds=found.age_s))
            yield "warn", f"prepared transaction {found.gid!r}, {age} old, keeps WAL: commit it, or roll it back"
        elif found.age_s is not None and found.age_s > _LONG_S:
            age = render_delay(timedelta(seconds=found.age_s))
            yield "warn", f"pid {found.pid} writes since {age}, and keeps WAL: end it (pg_terminate_backend)"


def _catalog(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    try:
        row = connection.execute(FIND_REVISION).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    check_revision(None if row is None else row[0])
    yield "ok", f"at revision {row[0] if row else ''}"


def _tables(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    for table in _rows(connection, "doctor", "tables", _SCHEMA):
        if not table.is_collection:
            yield "warn", f'table "{_SCHEMA}.{table.name}" is no collection: streams and stores leave it alone'
        elif not table.is_full:
            named = f'"{_SCHEMA}"."{table.name}"'
            yield "wrong", f"{named} gives no before images: ALTER TABLE {named} REPLICA IDENTITY FULL"
    for index in _rows(connection, "doctor", "unfinished_indexes", _SCHEMA):
        yield "warn", f'index "{index.name}" of "{index.collection}" is unfinished: create it again, or drop it'


def _streams(store: Store) -> Iterator[tuple[str, str]]:
    found = store.status()
    if found.problem is not None:
        yield "wrong", found.problem
    else:
        yield "ok", f"one was tried, through {found.plugin} ({found.plugin_reason})"
    if not found.follows_ddl:
        yield "warn", "DDL in plain SQL makes no events: run `pgdoc init` once as a superuser"


def _history(store: Store) -> Iterator[tuple[str, str]]:
    found = store.history()
    if found.oldest is None:
        yield "warn", "none is kept: it begins with the first stream"
        return
    yield "ok", f"back to {found.oldest}, {render_bytes(found.retained_bytes)} of WAL held back"


def _consumers(store: Store) -> Iterator[tuple[str, str]]:
    for consumer in store.consumers():
        drop = f"drop it with `pgdoc consumers drop {consumer.name}`"
        if consumer.wal_status in {None, "lost"}:
            yield "wrong", f"{consumer.name} has lost its slot or its WAL: {drop}, and rebuild from a snapshot"
        elif consumer.owner_pid is None:
            kept = render_bytes(consumer.retained_bytes)
            yield "warn", f"nobody has {consumer.name} open, and it holds back {kept} of WAL: open it, or {drop}"
        else:
            yield "ok", f"pid {consumer.owner_pid} has {consumer.name} open, {render_bytes(consumer.lag_bytes)} behind"


_AT_SERVER: Final = {
    "server": _server,
    "replication": _replication,
    "disk": _disk,
    "slots": _slots,
    "transactions": _transactions,
}
_AT_TABLES: Final = {"tables": _tables}
_AT_STORE: Final = {"streams": _streams, "history": _history, "consumers": _consumers}
