"""Connections for replication: how they are opened, and the errors of a server that does not allow it."""

from __future__ import annotations

import re
import select
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row

from pgdoc.database.catalog import FIND_FOREIGN_OWNER, OLDEST_SERVER, check_owner
from pgdoc.database.conninfo import parse_conninfo, with_application_name
from pgdoc.database.errors import FROZEN, connection_error, is_connection_loss, one_line
from pgdoc.database.rights import Caller
from pgdoc.database.session_settings import as_options, given_options, still_accepted
from pgdoc.database.standbys import FIND_PRIMARY
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import (
    DatabaseError,
    DirectRouteNeeded,
    HistoryLost,
    PgdocError,
    PluginMissing,
    PluginNotAllowed,
    ReplicationNotPermitted,
    ServerUnreachable,
    SlotsExhausted,
    UnsupportedServer,
    UpgradePrepared,
    WalLevelTooLow,
)
from pgdoc.runtime.deadline import BoundedConnection, deadline_scope
from pgdoc.sql import statement

SETTINGS = {
    "search_path": "pg_catalog,pg_temp",
    "datestyle": "ISO",
    "timezone": "UTC",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "quote_all_identifiers": "off",
    "lc_monetary": "C",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_read_only": "off",
    "synchronous_commit": "local",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
}
"""Session settings that override the role's own.

Most decide how the walsender prints values. `search_path` keeps other roles' functions from being called: these
sessions run no statement of the user.
"""

_SILENT_MS = 25_000
_ASK_S = 5.0

_DEAD_CLIENT = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": str(_SILENT_MS),
}
"""The server ends the session of a client that vanished, with its slots, walsenders and locks, within half a minute.

The user's own `options` take precedence.
"""

_GONE_CLIENT = {"client_connection_check_interval": "10s"}
"""The server also ends a statement whose client is gone, within this time. Not every system can."""

_REPORTED = {"DateStyle": "ISO", "TimeZone": "UTC"}
_HAS_TRANSACTION_TIMEOUT = 170000

_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": _SILENT_MS,
}


def connect(conninfo: str, *, replication: bool, purpose: str = "") -> psycopg.Connection[Any]:
    """Open an autocommit connection for replication, or for plain SQL about it.

    The enclosing `deadline_scope` bounds its waits. `purpose` says what the connection serves, such as `hub docs`; it
    is part of the `application_name`, see `with_application_name`.
    """
    named = with_application_name(conninfo, purpose)
    try:
        connection = _connect(_session(named, _DEAD_CLIENT | _GONE_CLIENT, replication=replication))
    except psycopg.Error as exc:
        if still_accepted(_GONE_CLIENT, str(exc)) is None:
            raise _refused(exc) from exc
        connection = _connect_without(named, replication=replication)
    try:
        _check_route(connection)
        _set_the_rest(connection)
    except psycopg.Error as exc:
        connection.close()
        raise _refused(exc) from exc
    except PgdocError:
        connection.close()
        raise
    return connection


def _connect_without(conninfo: str, *, replication: bool) -> psycopg.Connection[Any]:
    """Connect to a server on a system that can't notice a closed connection during a statement."""
    try:
        return _connect(_session(conninfo, _DEAD_CLIENT, replication=replication))
    except psycopg.Error as exc:
        raise _refused(exc) from exc


def _connect(session: str) -> psycopg.Connection[Any]:
    return BoundedConnection.connect(  # a walsender can't prepare statements
        session, autocommit=True, row_factory=namedtuple_row, prepare_threshold=None
    )


def _session(conninfo: str, dead_client: dict[str, str], *, replication: bool) -> str:
    given: dict[str, Any] = parse_conninfo(conninfo)
    options = " ".join([as_options(dead_client), given_options(conninfo), as_options(SETTINGS)])
    wanted = {**_DEFAULTS, **given, "options": options.strip()}
    if replication:
        wanted["replication"] = "database"
    return make_conninfo(**wanted)


def _check_route(connection: psycopg.Connection[Any]) -> None:
    """Refuse a pooler that drops the startup options, before a SET reaches the next client of its session.

    The server reports this setting when it is connected.
    """
    found = connection.info.parameter_status("IntervalStyle")
    if found not in {None, SETTINGS["intervalstyle"]}:
        raise DirectRouteNeeded(
            f"the settings of the connection were not passed on (IntervalStyle is {found}): {_DIRECT_ROUTE}"
        )


def _set_the_rest(connection: psycopg.Connection[Any]) -> None:
    """Set what the startup packet can't.

    libpq sends PGDATESTYLE and PGTZ after the `options`, and older servers refuse a setting that they don't know.
    """
    for name, value in _REPORTED.items():
        if not (connection.info.parameter_status(name) or value).startswith(value):
            connection.execute(f"SET {name} = '{value}'".encode())
    if connection.info.server_version >= _HAS_TRANSACTION_TIMEOUT:
        connection.execute(b"SET transaction_timeout = 0")  # decoding a large transaction takes one, too


def preflight(connection: psycopg.Connection[Any], *, needs_slot: bool = True, allows_standby: bool = False) -> bool:
    """Check on a connection for plain SQL what replication needs; the errors say what to do.

    The walsender's own refusals have no SQLSTATE, come in the server's language, and say less.

    Returns:
        Whether the server is a standby.
    """
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise UnsupportedServer(f"the server is PostgreSQL {_major(version)}: pgdoc needs version 15 or newer")
    try:
        check_owner(connection.execute(FIND_FOREIGN_OWNER).fetchone())
        found = connection.execute(statement("replication", "preflight")).fetchone()
    except psycopg.Error as exc:
        raise map_replication_error(exc, connection) from exc
    assert found is not None  # noqa: S101 (a SELECT without FROM returns a row)
    _check_database(found)
    if found.in_recovery:
        _check_standby(version, allows_standby=allows_standby)
    _check_replication(found, needs_slot=needs_slot)
    return bool(found.in_recovery)


def _check_database(found: Any) -> None:
    if found.encoding != "UTF8":
        raise UnsupportedServer(
            f'the database "{found.database}" is encoded in {found.encoding}, not UTF8: create one with '
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def _check_standby(version: int, *, allows_standby: bool) -> None:
    if not allows_standby:
        raise ServerUnreachable(
            "the server is a standby in recovery: streams need a primary. Wait for a promotion, or "
            f"{FIND_PRIMARY}. Streams can read a standby that is given as replication_conninfo, beside the primary as "
            "conninfo"
        )
    if version < _DECODES_ON_STANDBY:
        raise ServerUnreachable(
            f"the server is a standby in recovery, and PostgreSQL {_major(version)} can't decode there (16 and newer "
            "can): give the primary as replication_conninfo, or wait for a promotion"
        )


def _check_replication(found: Any, *, needs_slot: bool) -> None:
    if found.wal_level != "logical":
        raise WalLevelTooLow(
            f"wal_level is {found.wal_level}{' on the standby' if found.in_recovery else ''}: run ALTER SYSTEM SET "
            "wal_level = 'logical' and restart the server"
        )
    if not found.may_replicate:
        raise ReplicationNotPermitted(f'role "{found.role}" may not replicate: {Caller(found.role).to_replicate()}')
    if needs_slot and found.slots >= found.max_slots:
        raise SlotsExhausted(f"all {found.max_slots} replication slots of the server are in use: {_MORE_SLOTS}")
    if found.walsenders >= found.max_walsenders:
        raise SlotsExhausted(f"all {found.max_walsenders} walsenders of the server are in use: {_MORE_WALSENDERS}")


def is_decoding(conninfo: str, pid: int) -> bool:
    """Ask the server, on another connection, whether a walsender is decoding, rather than gone or waiting for pgdoc.

    While wal2json decodes rows that its filter drops, the walsender neither sends nor answers anything: a transaction
    of millions of rows in other schemas looks like a dead network.
    """
    with deadline_scope(_ASK_S), connect(conninfo, replication=False) as plain:
        try:
            row = plain.execute(statement("replication", "is_decoding"), [pid]).fetchone()
        except psycopg.Error as exc:
            raise map_replication_error(exc, plain) from exc
    return bool(row and row[0])


def map_replication_error(exc: psycopg.Error, connection: psycopg.Connection[Any]) -> PgdocError:
    """Return pgdoc's error for one of psycopg's, which may have closed `connection`."""
    text = one_line(exc)
    plugin = next((name for name in PLUGINS if name in text), None)
    if exc.sqlstate == "58P01" and plugin:
        return PluginMissing(
            f"the server has no output plugin {plugin} ({text}): install it on the server's machine "
            f"(Debian: apt-get install postgresql-{_major(_version(connection))}-{plugin}); it needs no restart"
        )
    if exc.sqlstate == "42501":
        return PluginNotAllowed(f"{text}: {_ALLOW}") if plugin else ReplicationNotPermitted(f"{text}: {_ALTER_ROLE}")
    lacking = _lacking(exc, text)
    if lacking is not None:
        return lacking
    if is_connection_loss(exc) or exc.sqlstate in _PASSING:
        return ServerUnreachable(f"the connection to the server was lost: {text}")
    return DatabaseError(f"replication failed: {text}", sqlstate=exc.sqlstate)


def _lacking(exc: psycopg.Error, text: str) -> PgdocError | None:
    """Return the error for what the server lacks to read a slot, if that is the reason."""
    sqlstate = exc.sqlstate
    if sqlstate == FROZEN:
        return UpgradePrepared(f"{text}. {(exc.diag.message_hint or '').rstrip('.')}")
    if sqlstate == "42704" and _OUR_PUBLICATION.search(text):
        return HistoryLost(f"{text}: the publication is younger than the WAL to be read: stream from now")
    if sqlstate == "55000" and _WAL_LEVEL.search(text):
        return WalLevelTooLow(f"{text}: run ALTER SYSTEM SET wal_level = 'logical' there and restart that server")
    return SlotsExhausted(f"{text}: {_MORE_SLOTS}") if sqlstate == "53400" else None


def _refused(exc: psycopg.Error) -> PgdocError:
    """Return pgdoc's error for a connection that could not be opened."""
    text = one_line(exc)
    for mark, error, advice in _REFUSALS:
        if mark in text:
            return error(f"{text}: {advice}")
    return connection_error(exc)


def quote_identifier(name: str) -> str:
    """Return a name as SQL writes it."""
    return sql.Identifier(name).as_string(None)


def quote_literal(value: str) -> str:
    """Return a text as SQL writes it; the replication protocol takes no parameters."""
    return sql.Literal(value).as_string(None)


def quote_option(value: str) -> str:
    """Return a text as a replication command writes it: there, a backslash has no meaning, and `E''` is unknown."""
    return "'" + value.replace("'", "''") + "'"


def _version(connection: psycopg.Connection[Any]) -> int:
    try:
        return connection.info.server_version
    except psycopg.OperationalError:  # closed
        return 0


def _major(version: int) -> str:
    return str(version // 10000) if version else "NN"


_PASSING = {"57014", "53000", "53100", "53200", "40001"}
"""A walsender that was cancelled or was in the way of a standby's recovery, or a server that lacks memory or room on
its disk: a stream goes on when that has passed."""

_DECODES_ON_STANDBY = 160000
_WAL_LEVEL = re.compile(r"\bwal_level\b")
"""Finds the setting in a message of any language: a standby can't decode if its primary writes too little."""

_OUR_PUBLICATION = re.compile(r"\bpgdoc\b")
"""Finds the publication's name in a message of any language; it does not match the name of a slot, `pgdoc_...`."""

_ALLOW = (
    "run ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding', 'wal2json' and "
    "SELECT pg_reload_conf() as a superuser"
)
_MORE_SLOTS = "raise max_replication_slots and restart the server, or drop slots that nobody reads"
_MORE_WALSENDERS = "raise max_wal_senders and restart the server, or close streams"
_DIRECT_ROUTE = "conninfo leads to a pooler; give the server's own host and port as replication_conninfo"
_ALTER_ROLE = "run ALTER ROLE ... REPLICATION as a superuser; `pgdoc grant` prints all that a role needs for streams"


class _Refusal(NamedTuple):
    mark: str
    error: type[PgdocError]
    advice: str


_REFUSALS = [
    _Refusal("max_wal_senders", SlotsExhausted, _MORE_WALSENDERS),
    _Refusal("pg_hba.conf", ReplicationNotPermitted, "add a line for this role, database and address to pg_hba.conf"),
    _Refusal("unsupported startup parameter", DirectRouteNeeded, _DIRECT_ROUTE),
    _Refusal("command-line options", DirectRouteNeeded, _DIRECT_ROUTE),
    _Refusal("walsender", ReplicationNotPermitted, _ALTER_ROLE),
    _Refusal("WAL sender", ReplicationNotPermitted, _ALTER_ROLE),
]


def has_word(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the server has sent an idle session something: most often, that it has ended it."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))
