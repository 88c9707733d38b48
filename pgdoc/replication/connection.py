"""Connections for replication: how they are made, and what can be wrong with the server at their other end."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg import conninfo as psycopg_conninfo
from psycopg import sql
from psycopg.rows import namedtuple_row

from pgdoc.errors import (
    DatabaseError,
    DirectRouteNeeded,
    PgdocError,
    PluginMissing,
    PluginNotAllowed,
    ReplicationNotPermitted,
    ServerUnreachable,
    SlotsExhausted,
    UnsupportedServer,
    WalLevelTooLow,
)
from pgdoc.sql import statement

SETTINGS = {
    "datestyle": "ISO",
    "timezone": "UTC",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "statement_timeout": "0",
    "idle_session_timeout": "0",
}
"""What the walsender prints follows its session's settings, whatever the role's own are."""


_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": 10,
    "application_name": "pgdoc",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def connect(conninfo: str, *, replication: bool) -> psycopg.Connection[Any]:
    """Open a connection in autocommit, for replication or for plain SQL about it.

    Raises:
        PgdocError: translated as by `translate`.
    """
    given: dict[str, Any] = psycopg_conninfo.conninfo_to_dict(conninfo)
    options = " ".join([str(given.pop("options", "")), *(f"-c {name}={value}" for name, value in SETTINGS.items())])
    wanted = psycopg_conninfo.make_conninfo(**(_DEFAULTS | given), options=options.strip(), client_encoding="utf8")
    if replication:
        wanted = psycopg_conninfo.make_conninfo(wanted, replication="database")
    try:
        return psycopg.connect(wanted, autocommit=True, row_factory=namedtuple_row)
    except psycopg.Error as exc:
        raise translate(exc, conninfo) from exc


def preflight(connection: psycopg.Connection[Any]) -> None:
    """Check on an ordinary connection what replication needs, where errors say more than the walsender's.

    Raises:
        UnsupportedServer, WalLevelTooLow, ReplicationNotPermitted: each with the statement that mends it.
    """
    try:
        found = connection.execute(statement("replication", "preflight")).fetchone()
    except psycopg.Error as exc:
        raise translate(exc) from exc
    assert found is not None  # noqa: S101 (a SELECT without FROM gives a row)
    if found.version < 150000:
        raise UnsupportedServer(f"the server is PostgreSQL {found.version // 10000}: pgdoc needs 15 or newer")
    if found.encoding != "UTF8":
        raise UnsupportedServer(
            f"database {found.database!r} is encoded in {found.encoding}: pgdoc needs one created with ENCODING 'UTF8'"
        )
    if found.in_recovery:
        raise UnsupportedServer("the server is a standby in recovery: open streams on the primary")
    if found.wal_level != "logical":
        raise WalLevelTooLow(
            f"wal_level is {found.wal_level!r}: run ALTER SYSTEM SET wal_level = 'logical' and restart the server"
        )
    if not found.may_replicate:
        raise ReplicationNotPermitted(
            f"role {found.role!r} may not replicate: run ALTER ROLE {quoted(found.role)} REPLICATION as a superuser"
        )


def translate(exc: psycopg.Error, conninfo: str | None = None) -> PgdocError:
    """Give our error for one of psycopg's, met while connecting or on a replication statement."""
    text = " ".join(str(exc).split())
    by_state = _BY_SQLSTATE.get(exc.sqlstate or "")
    if by_state is not None:
        error, advice = by_state
        return error(f"{text}: {advice}")
    # The FATAL of a refused connection comes without SQLSTATE; setting names are the same in every language.
    for mark, error, advice in _BY_TEXT:
        if mark in text:
            return error(f"{text}: {advice}")
    if exc.sqlstate is None and isinstance(exc, psycopg.OperationalError):
        place = f" {_place(conninfo)}" if conninfo is not None else ""
        return ServerUnreachable(f"no connection to the server{place}: {text}")
    if (exc.sqlstate or "")[:2] in {"08", "57", "53"}:
        return ServerUnreachable(f"the connection to the server was lost: {text}")
    return DatabaseError(text, sqlstate=exc.sqlstate)


def quoted(name: str) -> str:
    """Give a name as SQL writes it."""
    return sql.Identifier(name).as_string(None)


def literal(value: str) -> str:
    """Give a text as SQL writes it; the replication protocol takes no parameters."""
    return sql.Literal(value).as_string(None)


def _place(conninfo: str) -> str:
    given = psycopg_conninfo.conninfo_to_dict(conninfo)
    return f"at {given.get('host', 'the default host')}, port {given.get('port', 5432)}"


class _Cure(NamedTuple):
    error: type[PgdocError]
    advice: str


_BY_SQLSTATE: dict[str, _Cure] = {
    "58P01": _Cure(
        PluginMissing, "install it on the server's machine (Debian: apt-get install postgresql-15-wal2json)"
    ),
    "42501": _Cure(
        PluginNotAllowed,
        "run ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding', 'wal2json' and "
        "SELECT pg_reload_conf() as a superuser",
    ),
    "53400": _Cure(
        SlotsExhausted, "raise max_replication_slots and restart the server, or drop slots that nobody reads"
    ),
}

_BY_TEXT: list[tuple[str, type[PgdocError], str]] = [
    ("max_wal_senders", SlotsExhausted, "raise max_wal_senders and restart the server, or close streams"),
    ("pg_hba.conf", ReplicationNotPermitted, "add a line for this role, database and address to pg_hba.conf"),
    (
        "unsupported startup parameter",
        DirectRouteNeeded,
        "conninfo leads to a pooler: give replication_conninfo with the server's own host and port",
    ),
    ("walsender", ReplicationNotPermitted, "run ALTER ROLE ... REPLICATION as a superuser"),
    ("WAL sender", ReplicationNotPermitted, "run ALTER ROLE ... REPLICATION as a superuser"),
    ("password authentication failed", DatabaseError, "check the role and password of the conninfo"),
    ("does not exist", DatabaseError, "check the role and database of the conninfo"),
]
