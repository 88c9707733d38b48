"""The user's conninfo: how it is parsed, and the settings that pgdoc adds to it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc.errors import DatabaseError
from pgdoc.runtime.encoding import in_utf8
from pgdoc.runtime.secrets import without_secrets

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn

__all__ = ["PlainConnection", "parse_conninfo", "with_application_name", "with_timeout"]

_CONNECT_TIMEOUT_S = 10
_NAME_BYTES = 63  # PostgreSQL cuts off longer names, and logs a notice
_ADVICE = (
    "use key=value words with values in single quotes where they have spaces, or a URL in which special characters of "
    "the user and the password are percent-encoded, such as %40 for @. The value is not shown, as it may hold a secret"
)
_FAULTS = {
    r"invalid percent-encoded|forbidden value %00": "a % is not followed by two hexadecimal digits of a character",
    r"unterminated quoted string": "a quoted value has no closing quote",
    r'missing "="|missing key/value': "a word has no =",
    r"invalid connection option|invalid URI query parameter": "libpq does not know one of the options",
}
"""What libpq says, and what pgdoc says instead: libpq quotes the text that it can't read."""


class PlainConnection(psycopg.Connection[Any]):
    """A psycopg connection in UTF-8 whose errors show no secrets."""

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[PlainConnection]:
        return without_secrets(super()._connect_gen(in_utf8(conninfo)), conninfo)


def parse_conninfo(conninfo: str) -> dict[str, str]:
    """Return the settings of a conninfo.

    Raises:
        DatabaseError: the conninfo is not valid. The error shows nothing of it, and has no cause, which would.
    """
    settings: dict[str, Any] = {}
    try:
        settings = conninfo_to_dict(conninfo)
        fault = _fault(settings)
    except psycopg.ProgrammingError as exc:
        fault = next((found for said, found in _FAULTS.items() if re.search(said, str(exc))), "libpq can't read it")
    except UnicodeError:
        fault = "it is not UTF-8"
    if fault:
        raise DatabaseError(f"the conninfo is not valid: {fault}. {_ADVICE[0].upper()}{_ADVICE[1:]}")
    return settings


def _fault(settings: dict[str, Any]) -> str:
    """Return why a conninfo that libpq can read is wrong: a password that is not encoded spills into host and port."""
    if "@" in settings.get("host", "")[1:]:  # the path of an abstract socket begins with it
        return "the host contains an @"
    if not re.fullmatch(r"[\d,\s]*", settings.get("port", "")):
        return "the port is not a number"
    timeout_s = settings.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or "0"
    if not re.fullmatch(r"\s*-?\d+\s*", timeout_s):
        return "connect_timeout is not a number"
    return ""


def with_timeout(conninfo: str) -> str:
    """Add a `connect_timeout` unless the user set one: without it, a dead address takes minutes to fail."""
    if "connect_timeout" in parse_conninfo(conninfo) or "PGCONNECT_TIMEOUT" in os.environ:
        return conninfo
    return make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT_S)


def with_application_name(conninfo: str, purpose: str = "") -> str:
    """Name a connection after what it serves, for `pg_stat_activity` and `pg_stat_replication`.

    The name is `pgdoc <purpose>`. If the user set an `application_name` in the conninfo or in PGAPPNAME, that comes
    first: `<user's name>: pgdoc <purpose>`. A name of over 63 bytes loses its end, and bytes that are not UTF-8 are
    dropped. Only libpq reads service files: a name that one of them sets stays as it is. `purpose` is empty for a
    short-lived connection.
    """
    settings = parse_conninfo(conninfo)
    own = settings.get("application_name")
    uses_service = "service" in settings or "PGSERVICE" in os.environ
    given = own or os.environ.get("PGAPPNAME") or settings.get("fallback_application_name")
    name = f"pgdoc {purpose}".rstrip()
    name = f"{given}: {name}" if given else name
    name = name.encode(errors="ignore")[:_NAME_BYTES].decode(errors="ignore")
    if uses_service and not own:
        return make_conninfo(conninfo, fallback_application_name=name)
    return make_conninfo(conninfo, application_name=name)
