"""`pgdoc doctor`: findings about a server, its database and the streams, each with what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from pgdoc.cli.collations import find_changed_collations
from pgdoc.cli.render import render_bytes, render_delay
from pgdoc.cli.sizes import find_large_documents
from pgdoc.cli.stores import DEFAULT_SCHEMA, conninfo_of_command, explain_missing_dsn, open_store
from pgdoc.cli.table_faults import find_table_faults
from pgdoc.cli.ttl import find_late_documents
from pgdoc.database.catalog import FIND_FOREIGN_OWNER, FIND_REVISION, check_owner, check_revision, check_server
from pgdoc.database.conninfo import PlainConnection
from pgdoc.database.errors import connection_error, one_line
from pgdoc.database.rights import Caller
from pgdoc.database.session_settings import (
    SESSION,
    missing_settings,
    still_accepted,
    wanted_settings,
    with_settings,
)
from pgdoc.database.standby_names import parse_standby_names
from pgdoc.errors import DatabaseError, PgdocError
from pgdoc.model.names import check_name, quoted, without_needless_quotes
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import ConsumerStatus, Store

__all__ = ["Finding", "examine_server"]

_LONG_TRANSACTION_S: Final = 60.0
_MUCH_WAL_BYTES: Final = 1 << 30
_FEW_FREE: Final = 2
_CONNECT_TIMEOUT_S: Final = 10
_MAY_NOT_READ: Final = "42501"
_SILENT: Final = timedelta(seconds=15)  # three heartbeats of a consumer's owner
_LEASE: Final = timedelta(seconds=30)
_CONSUMER_SLOT_PREFIX: Final = "pgdoc_"
_WITHOUT: Final = {
    "jit": "so a call with a long filter can take seconds, and can't be canceled meanwhile",
    "client_connection_check_interval": "so the statement of a program that was killed runs to its end",
}


class Finding(NamedTuple):
    """One line of the report. `verdict` is `ok`, `warn` (it will or may go wrong) or `wrong`."""

    verdict: str
    subject: str
    text: str


def examine_server(dsn: str, schema: str = DEFAULT_SCHEMA) -> Iterator[Finding]:
    """Run all checks. A check that fails becomes a finding, and the next one runs.

    `schema` has the tables, indexes and streams to check.
    """
    check_name(schema, "schema")
    try:
        connection = _connect(dsn)
    except PgdocError as exc:
        yield Finding("wrong", "connection", str(exc))
        return
    with connection:
        for subject, check in _SERVER_CHECKS.items():
            yield from _run_check(subject, check, connection)
        catalog = list(_run_check("catalog", _catalog, connection))
        yield from catalog
        if any(finding.verdict == "wrong" for finding in catalog):
            return
        yield from _run_check("tables", _tables, connection, schema)
        yield from _run_check("watched", find_table_faults, connection)
        yield from _run_check("collations", find_changed_collations, connection, schema)
        yield from _run_check("sizes", find_large_documents, connection, schema)
        yield from _run_check("expiry", find_late_documents, connection, schema)
    with open_store("doctor", dsn, schema) as store:
        for subject, check_store in _STORE_CHECKS.items():
            yield from _run_check(subject, check_store, store)


def _connect(dsn: str) -> psycopg.Connection[Any]:
    """Connect as a store does: with as many settings as the server, or a pooler before it, accepts."""
    conninfo = conninfo_of_command("doctor", dsn)
    accepted: dict[str, str] | None = wanted_settings(conninfo)
    while True:
        try:
            return PlainConnection.connect(
                with_settings(conninfo, accepted or {}),
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                row_factory=namedtuple_row,
                prepare_threshold=None,
            )
        except psycopg.Error as exc:
            accepted = still_accepted(accepted or {}, str(exc))
            if accepted is None:
                error = connection_error(exc)
                raise (error if dsn else explain_missing_dsn(error)) from exc


def _run_check(subject: str, check: Callable[..., Iterator[tuple[str, str]]], *arguments: Any) -> Iterator[Finding]:
    try:
        for verdict, text in check(*arguments):
            yield Finding(verdict, subject, text)
    except PgdocError as exc:
        yield Finding("wrong", subject, str(exc))
    except psycopg.Error as exc:
        yield Finding("wrong", subject, f"this check failed: {one_line(exc)}")


def _rows(connection: psycopg.Connection[Any], file: str, name: str, *params: Any) -> list[Any]:
    return connection.execute(statement(file, name).encode(), params or None).fetchall()


def _server(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    encoding = connection.info.parameter_status("server_encoding")
    check_server(connection.info.server_version, encoding)
    (found,) = _rows(connection, "doctor", "server")
    yield "ok", f"PostgreSQL {found.version}, {encoding}, database {connection.info.dbname}"


def _settings(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    """Check what the calls of a store need, and a pooler may keep from them."""
    found = dict(_rows(connection, "catalog", "session_settings", list(SESSION)))
    missing = missing_settings(wanted_settings(connection.info.dsn), found)
    for name, value in missing.items():
        alter = f"ALTER ROLE {sql.Identifier(connection.info.user).as_string(None)} SET {name} = '{value}'"
        yield "warn", f"{name} is {found[name]}, {_WITHOUT[name]}: run {alter}, and reconnect the pooler"
    if not missing:
        yield "ok", "sessions have the settings that document calls need"


def _replication(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    (found,) = _rows(connection, "replication", "preflight")
    if found.in_recovery:
        yield "wrong", "the server is a standby in recovery: connect to the primary"
    if found.wal_level != "logical":
        yield "wrong", f"wal_level is {found.wal_level}: set it to logical and restart the server"
    if not found.may_replicate:
        yield "wrong", f'role "{found.role}" may not replicate: {Caller(found.role).to_replicate()}'
    for what, used, most, setting in (
        ("replication slots", found.slots, found.max_slots, "max_replication_slots"),
        ("walsenders", found.walsenders, found.max_walsenders, "max_wal_senders"),
    ):
        free = most - used
        verdict = "wrong" if free <= 0 else "warn" if free <= _FEW_FREE else "ok"
        advice = "" if verdict == "ok" else f": raise {setting} and restart the server"
        yield verdict, f"{free} of {most} {what} free{advice}"


def _connections(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    (found,) = _rows(connection, "doctor", "connections")
    free = found.most - found.used
    if free <= _FEW_FREE:
        advice = "limit the roles that need few (ALTER ROLE ... CONNECTION LIMIT), or raise max_connections"
        yield "warn", f"{max(free, 0)} of {found.most} connections free, and any role may take them: {advice}"
    else:
        yield "ok", f"{free} of {found.most} connections free"


def _standbys(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    (found,) = _rows(connection, "doctor", "standby_names")
    listed = parse_standby_names(found.names)
    if not listed:
        return
    setting = f"synchronous_standby_names ({found.names})"
    ours = {"*", *(name.lower() for name in found.open)}
    if listed & ours or any("pgdoc" in name for name in listed):
        yield (
            "warn",
            (
                f"{setting} can match pgdoc's walsenders: they report nothing that could count, but confirm late and "
                "reconnect to release WAL; list the standbys by their names"
            ),
        )
    else:
        yield "ok", f"{setting} matches none of pgdoc's walsenders"


def _disk(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    (found,) = _rows(connection, "doctor", "server")
    if found.keep_size == "-1":
        advice = "set it, for example to 10GB"
        yield "warn", f"max_slot_wal_keep_size is unlimited, so a slot that nobody reads can fill the disk: {advice}"
    else:
        yield "ok", f"slots can retain up to {found.keep_size} of WAL (max_slot_wal_keep_size)"


def _slots(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    for slot in _rows(connection, "doctor", "slots"):
        if slot.wal_status == "lost":
            if not slot.name.startswith(_CONSUMER_SLOT_PREFIX):  # _consumers reports those
                drop = f"SELECT pg_drop_replication_slot('{slot.name}')"
                yield "warn", f"slot {slot.name} has lost its WAL and is useless: drop it with {drop}"
        elif (slot.retained or 0) > _MUCH_WAL_BYTES:
            yield "warn", f"slot {slot.name} retains {render_bytes(slot.retained)} of WAL: {_advice_on_wal(slot.name)}"


def _advice_on_wal(slot: str) -> str:
    if slot.startswith(_CONSUMER_SLOT_PREFIX):
        return "open its consumer so that it catches up, or drop the consumer"
    return "it keeps the history that streams resume from; `Store.set_history` limits its size"


def _transactions(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    of_unknown_age = []
    for found in _rows(connection, "doctor", "blockers"):
        if found.gid is not None:
            age = render_delay(timedelta(seconds=found.age_s))
            yield "warn", f"prepared transaction {found.gid!r}, {age} old, keeps WAL: commit it or roll it back"
        elif found.age_s is None:
            of_unknown_age.append(str(found.pid))
        elif found.age_s > _LONG_TRANSACTION_S:
            age = render_delay(timedelta(seconds=found.age_s))
            end = f"SELECT pg_terminate_backend({found.pid})"
            yield "warn", f"pid {found.pid} has a write transaction open for {age}, which keeps WAL: end it with {end}"
    if of_unknown_age:
        run = f'GRANT pg_read_all_stats TO "{connection.info.user}"'
        pids = ", ".join(of_unknown_age)
        yield "warn", f"write transactions of other roles are open (pid {pids}); to see for how long, run {run}"


def _catalog(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    check_owner(connection.execute(FIND_FOREIGN_OWNER).fetchone())
    try:
        row = connection.execute(FIND_REVISION).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    check_revision(None if row is None else row[0])
    if connection.execute(statement("doctor", "is_bound").encode()).fetchone() == (False,):
        yield "wrong", "the registry belongs to another database: this one is a copy, or was restored; run `pgdoc init`"
        return
    yield "ok", f"revision {row[0] if row else ''}"


def _tables(connection: psycopg.Connection[Any], schema: str) -> Iterator[tuple[str, str]]:
    ((has_schema,),) = _rows(connection, "catalog", "schema_exists", schema)
    if schema != DEFAULT_SCHEMA and not has_schema:
        yield "warn", f'schema "{schema}" does not exist: check the name'
    for table in _rows(connection, "doctor", "tables", schema):
        yield from _table(schema, table)
    for index in _rows(connection, "doctor", "unfinished_indexes", schema):
        yield "warn", f'index "{index.name}" of "{index.collection}" is unfinished: create it again or drop it'


def _table(schema: str, table: Any) -> Iterator[tuple[str, str]]:
    # A name is another role's text: it must not end the literal.
    literal = without_needless_quotes(quoted(schema, table.name)).replace("'", "''")
    register = f"SELECT pgdoc.register('{literal}')"
    if table.is_watched:
        return  # not as a collection; `find_table_faults` checks it
    if not table.is_collection:
        advice = f"{table.fault}" if table.fault else f"run {register} as its owner to make it one"
        yield "warn", f'table "{schema}.{table.name}" is not a collection, and stores and streams ignore it: {advice}'
    elif table.fault:
        yield "wrong", f'collection "{schema}.{table.name}" has lost its form: {table.fault}'
    elif not table.is_equipped:
        lacks = "its triggers" if table.is_full else "before images"
        yield "wrong", f'collection "{schema}.{table.name}" has lost {lacks}: run {register} as its owner'


def _streams(store: Store) -> Iterator[tuple[str, str]]:
    found = store.status()
    if found.problem is not None:
        yield "wrong", found.problem
    else:
        yield "ok", f"a test stream through {found.plugin} works ({found.plugin_reason})"
    if not found.follows_ddl:
        yield (
            "warn",
            (
                "no event triggers, so streams notice DDL in plain SQL late: `pgdoc init` adds them if a superuser "
                "owns the catalog; another one can't have them"
            ),
        )


def _history(store: Store) -> Iterator[tuple[str, str]]:
    found = store.history()
    if found.oldest is None:
        yield "warn", "none is kept yet, so no stream can resume: open a stream, or run `pgdoc init`"
        return
    yield "ok", f"reaches back to {found.oldest} and retains {render_bytes(found.retained_bytes)} of WAL"


def _consumers(store: Store) -> Iterator[tuple[str, str]]:
    try:
        consumers = store.consumers()
    except DatabaseError as exc:
        if exc.sqlstate != _MAY_NOT_READ:
            raise
        yield "warn", f"the role may not read them: {exc}"
        return
    for consumer in consumers:
        drop = f"drop it with `pgdoc consumers drop {consumer.name}`"
        if consumer.unreadable is not None:
            skip = f"`pgdoc consumers skip {consumer.name}`"
            found = f"can't read the transaction that commits at {consumer.unreadable}"
            yield "wrong", f"consumer {consumer.name} {found}: pass it with {skip}, and open the consumer again"
        elif consumer.wal_status in {None, "lost"}:
            yield "wrong", f"consumer {consumer.name} has lost its slot or its WAL: {drop}, and start from a snapshot"
        elif consumer.owner_pid is None:
            kept = render_bytes(consumer.retained_bytes)
            yield "warn", f"consumer {consumer.name} is not open, and retains {kept} of WAL: open it, or {drop}"
        elif consumer.owner_silent is not None and consumer.owner_silent > _SILENT:
            yield "warn", _describe_silence(consumer)
        else:
            behind = render_bytes(consumer.lag_bytes)
            yield "ok", f"consumer {consumer.name} is open in pid {consumer.owner_pid}, {behind} behind"


def _describe_silence(consumer: ConsumerStatus) -> str:
    silent = consumer.owner_silent or timedelta()
    lease = " and its lease has expired" if silent > _LEASE else ""
    end = f"SELECT pg_terminate_backend({consumer.owner_pid})"
    return (
        f"the owner of consumer {consumer.name}, pid {consumer.owner_pid}, has been silent for {render_delay(silent)}"
        f"{lease}: its process hangs or is cut off; to let a standby take over at once, run {end}"
    )


_SERVER_CHECKS: Final = {
    "server": _server,
    "settings": _settings,
    "replication": _replication,
    "connections": _connections,
    "standbys": _standbys,
    "disk": _disk,
    "slots": _slots,
    "transactions": _transactions,
}
_STORE_CHECKS: Final = {"streams": _streams, "history": _history, "consumers": _consumers}
