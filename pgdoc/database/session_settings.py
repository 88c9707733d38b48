"""The settings of PostgreSQL that pgdoc's sessions must have, however the role, the database and the user set them.

`docs/reference/session-settings.md` has every setting that could change a meaning, and what pgdoc does about it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from psycopg import pq
from psycopg.conninfo import make_conninfo

from pgdoc.database.conninfo import parse_conninfo
from pgdoc.errors import DatabaseError, UnsupportedServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

__all__ = [
    "SESSION",
    "as_options",
    "check_encoding",
    "effective_role",
    "given_options",
    "local_statements",
    "missing_settings",
    "still_accepted",
    "wanted_settings",
    "with_settings",
]

SESSION: Final = {
    # Compiling the expressions of a long filter takes seconds, and can't be canceled meanwhile.
    "jit": "off",
    # The statement of a process that was killed would run to its end.
    "client_connection_check_interval": "10s",
    # A GIN index would leave out matching documents.
    "gin_fuzzy_search_limit": "0",
}
"""The settings of document calls, as startup options, or with SET LOCAL in a transaction behind a pooler."""

_UNSET: Final = {"jit": "on", "client_connection_check_interval": "0"}
"""What costs time, but changes no answer. The `options` of the user take precedence, and a pooler may have these."""


def wanted_settings(conninfo: str) -> dict[str, str]:
    """Return the settings for the sessions of a conninfo: `SESSION`, except what the user's own `options` decide."""
    given = given_options(conninfo)
    return {name: value for name, value in SESSION.items() if name not in _UNSET or name not in given}


def with_settings(conninfo: str, settings: Mapping[str, str]) -> str:
    """Add settings to the startup options of a conninfo, after those that the user gave."""
    if not settings:
        return conninfo
    return make_conninfo(conninfo, options=f"{given_options(conninfo)} {as_options(settings)}".strip())


def missing_settings(wanted: Mapping[str, str], found: Mapping[str, str | None]) -> dict[str, str]:
    """Return the wanted settings that a session does not have, because a pooler has not passed them on.

    Raises:
        UnsupportedServer: answers would be wrong without one of them.
    """
    limit = found.get("gin_fuzzy_search_limit")
    if limit not in {"0", None}:
        raise UnsupportedServer(
            f"gin_fuzzy_search_limit is {limit} in this session, so an index would leave out documents, and a "
            "pooler keeps pgdoc from setting it to 0: run ALTER ROLE ... RESET gin_fuzzy_search_limit for the role of "
            "the conninfo, ALTER DATABASE ... RESET gin_fuzzy_search_limit, and reconnect the pooler"
        )
    return {name: wanted[name] for name, value in _UNSET.items() if name in wanted and found.get(name) == value}


def effective_role(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], found: Mapping[str, str | None]
) -> str:
    """Return the role whose rights a session has: the one that logged in, or the one that its `options` set."""
    role = found.get("role")
    return role if role and role != "none" else connection.info.user


def as_options(settings: Mapping[str, str]) -> str:
    """Return settings as libpq's `options` has them."""
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def given_options(conninfo: str) -> str:
    """Return the `options` of a conninfo, which come from a service file or PGOPTIONS if the conninfo has none.

    Options that pgdoc adds to a conninfo would replace those.
    """
    given = parse_conninfo(conninfo)
    if "options" in given:
        return given["options"]
    if "service" not in given and "PGSERVICE" not in os.environ:
        return os.environ.get("PGOPTIONS", "")
    # Only libpq reads service files, and only for a connection: one that fails without using the network.
    nowhere: dict[str, Any] = {"host": "/dev/null", "hostaddr": "", "port": "5432"}
    found = pq.PGconn.connect_start(make_conninfo(conninfo, **nowhere).encode())
    try:
        return next((item.val.decode() for item in found.info if item.keyword == b"options" and item.val), "")
    finally:
        found.finish()


def still_accepted(settings: Mapping[str, str], refusal: str) -> dict[str, str] | None:
    """Return the settings to connect with after a refusal; `None` if they were not the reason.

    PgBouncer and RDS Proxy refuse `options`. A server without a setting, or on a system that can't provide it, names
    the setting.
    """
    if not settings:
        return None
    if "startup parameter" in refusal or "command-line options" in refusal:
        return {}
    rest = {name: value for name, value in settings.items() if name not in refusal}
    return rest if len(rest) < len(settings) else None


def local_statements(missing: Mapping[str, str]) -> list[bytes]:
    """Return the statements that set settings until the end of a transaction. They take no snapshot."""
    return [f"SET LOCAL {name} = '{value}'".encode() for name, value in missing.items()]


def check_encoding(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Check that the server takes what this session sends as UTF-8, which COPY sends without looking."""
    encoding = connection.info.parameter_status("client_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"client_encoding is {encoding} in this session, and pgdoc sends UTF-8: remove SET client_encoding from "
            "the program, or configure the pooler to pass on client_encoding from the startup packet",
            sqlstate="22021",
        )
