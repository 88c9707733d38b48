"""The user's conninfo: how it is parsed, and the settings that pgdoc adds to it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc.errors import DatabaseError
from pgdoc.runtime.deadline import BoundedConnection
from pgdoc.runtime.encoding import in_utf8
from pgdoc.runtime.secrets import without_secrets

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn

__all__ = [
    "PlainConnection",
    "check_texts",
    "connect_bounded",
    "database_of",
    "parse_conninfo",
    "with_application_name",
    "with_timeout",
]

_CONNECT_TIMEOUT_S = 10
_NAME_BYTES = 63  # PostgreSQL cuts off longer names, and logs a notice
_ADVICE = (
    "use key=value words with values in single quotes where they have spaces, or a URL in which special characters of "
    "the user and the password are percent-encoded, such as %40 for @. The value is not shown, as it may hold a secret"
)
_UNKNOWN_OPTION = "libpq does not know one of the options"
_FAULTS = {
    r"invalid percent-encoded|forbidden value %00": "a % is not followed by two hexadecimal digits of a character",
    r"unterminated quoted string": "a quoted value has no closing quote",
    r'missing "="|missing key/value': "a word has no =",
    r"invalid connection option|invalid URI query parameter": _UNKNOWN_OPTION,
}
"""What libpq says, and what pgdoc says instead: libpq quotes the text that it can't read."""

_OTHER_URL = re.compile(r"(?!postgres(?:ql)?://)\s*[A-Za-z][\w.+-]*:/")  # such as SQLAlchemy's postgresql+psycopg://
_AFTER_PLAIN_OPTIONS = re.compile(
    r"\s*((?:(?:host|hostaddr|dbname|user)=[^\s'\\]+\s+|(?:port|connect_timeout)=\d+\s+)*)([a-z_][a-z0-9_]*)="
)
_FIRST_OF_QUERY = re.compile(r"postgres(?:ql)?://(?:[^?@]*@)?[^?@:]*(?::\d+)?(?:/[^?@]*)?\?([a-z_][a-z0-9_]*)=[^@]*")


class PlainConnection(psycopg.Connection[Any]):
    """A psycopg connection in UTF-8 whose errors show no secrets."""

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[PlainConnection]:
        return without_secrets(super()._connect_gen(in_utf8(conninfo)), conninfo)


def connect_bounded(conninfo: str, **options: Any) -> psycopg.Connection[Any]:
    """Connect for statements that the server has to answer within a limit, as `deadline_scope` says."""
    return BoundedConnection.connect(with_timeout(conninfo), **options)


def check_texts(**arguments: object) -> None:
    """Raise `ValueError` for a conninfo that is not text, such as that of a missing setting; it does not show it."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            found = "None" if value is None else type(value).__name__
            raise ValueError(  # noqa: TRY004 (as for all arguments of a store)
                f'{name} must be a str such as "host=db dbname=app" or "postgresql://db/app", got {found}'
            )


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
        fault = _said_fault(conninfo, str(exc))
    except UnicodeError:
        fault = "it is not UTF-8"
    if fault:
        raise DatabaseError(f"the conninfo is not valid: {fault}. {_ADVICE[0].upper()}{_ADVICE[1:]}")
    return settings


def _said_fault(conninfo: str, text: str) -> str:
    """Return what pgdoc says for libpq's text."""
    if _OTHER_URL.match(conninfo):
        return "a URL has to begin with postgresql:// or postgres://"
    for said, fault in _FAULTS.items():
        if re.search(said, text):
            name = _unknown_option(conninfo, text) if fault is _UNKNOWN_OPTION else None
            return fault if name is None else f"libpq does not know the option {name}"
    return "libpq can't read it"


def _unknown_option(conninfo: str, text: str) -> str | None:
    """Return the name of the option that libpq does not know, if it can be no piece of a secret.

    Nothing before it may hold one: a value with a space that is not quoted, or a URL whose password has a `?`.
    """
    plain, url = _AFTER_PLAIN_OPTIONS.match(conninfo), _FIRST_OF_QUERY.fullmatch(conninfo)
    name = url[1] if url else plain[2] if plain else None
    if name is None or f'"{name}"' not in text:
        return None
    before = re.findall(r"(\w+)=", plain[1]) if plain else []
    return name if len(before) == len(set(before)) else None


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


def database_of(conninfo: str) -> str:
    """Return the name of the database that a conninfo leads to; empty if that can't be told."""
    try:
        settings = conninfo_to_dict(conninfo)
        defaults = {each.keyword: each.val or b"" for each in pq.Conninfo.get_defaults()}
    except (psycopg.Error, UnicodeError):
        return ""
    found = {
        name: str(settings.get(name) or defaults.get(name.encode(), b"").decode(errors="replace"))
        for name in ("dbname", "service", "user")
    }
    return found["dbname"] or ("" if found["service"] else found["user"])


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
