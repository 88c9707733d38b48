"""Keeps the secrets of a conninfo out of the messages of psycopg, libpq and the server.

Only the host, port, database and user of a conninfo, and the names of the settings in `options`, may be shown. libpq
quotes what it can't use: a wrong value of any option, or the piece of a password that it takes for one. So a quoted
text is shown only if it is known to be harmless.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.abc import PQGenConn

__all__ = ["hidden", "without_secrets"]

T = TypeVar("T")

HIDDEN = "***"
_SHOWN = ("host", "hostaddr", "port", "dbname", "user")
# What servers quote besides the four, such as names of settings.
_WORDS = {"max_wal_senders", "wal_level", "pg_hba.conf", "pg_use_reserved_connections", "[local]"}
_WORDS |= {"jit", "client_connection_check_interval", "gin_fuzzy_search_limit"}  # pgdoc's own `options`
_WORDS |= {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
_QUOTES = re.compile(r"[\"„«»“”]")
_QUOTED = re.compile(r"([\"„«»“])([^\"„«»“”]*)([\"“»«”])")
_SOCKET = re.compile(r"/.*/\.s\.PGSQL\.\d+")
_SHORTEST = 4
_OPTION = r"(?:-c\s*|--)([A-Za-z_][\w.-]*)=(?:\\.|[^\s\\])*"
_OPTIONS = re.compile(rf"\s*(?:{_OPTION}\s+)*(?:{_OPTION})?")


def without_secrets(steps: PQGenConn[T], conninfo: str) -> PQGenConn[T]:
    """Run the steps in which psycopg opens a connection; an error of theirs shows no secret of `conninfo`."""
    try:
        return (yield from steps)
    except psycopg.Error as exc:
        text = hidden(str(exc), _settings(exc, conninfo))
        if text == str(exc):
            raise
        error = type(exc)(text)
    raise error  # outside of the block: an error raised inside would have the first as its context


def hidden(text: str, settings: Mapping[str, str]) -> str:
    """Return a message about a connection with these settings, with everything hidden that could be a secret."""
    shown, odd = _presentable_and_odd(settings)
    shown |= _option_names(settings.get("options", ""))

    def replace(found: re.Match[str]) -> str:
        before, quoted, after = found.groups()
        is_shown = quoted in shown or _SOCKET.fullmatch(quoted) or _is_address(quoted)
        return found[0] if is_shown else f"{before}{HIDDEN}{after}"

    if any(_QUOTES.search(value) for value in settings.values()):  # What is inside quotes can't be told.
        text = _QUOTED.split(text, maxsplit=1)[0] + HIDDEN
    words = sorted((odd | _option_words(settings)) - shown, key=len, reverse=True)
    unquoted = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words) or r"(?!)")
    parts, end = [], 0
    for found in _QUOTED.finditer(text):
        parts += [unquoted.sub(HIDDEN, text[end : found.start()]), replace(found)]
        end = found.end()
    return "".join([*parts, unquoted.sub(HIDDEN, text[end:])])


def _settings(exc: psycopg.Error, conninfo: str) -> dict[str, str]:
    """Return the settings of the connection that failed, those of service files and the environment included."""
    options = pq.Conninfo.parse(conninfo.encode()) + (exc.pgconn.info if exc.pgconn is not None else [])
    return {option.keyword.decode(): option.val.decode(errors="replace") for option in options if option.val}


def _presentable_and_odd(settings: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Return the texts that may be shown, and those in the place of one that may not.

    A host or database with an @ in it is a piece of a misread URL, in which the password was not percent-encoded.
    """
    shown = set(_WORDS)
    odd: set[str] = set()
    for name in _SHOWN:
        value = settings.get(name, "")
        for part in {value, *value.split(",")} - {""}:
            is_name = part.isdecimal() if name == "port" else re.fullmatch(r"[^@:=?&]+", part) is not None
            (shown if is_name or _is_address(part) else odd).add(part)
    return shown, odd


def _option_names(options: str) -> set[str]:
    """Return the names of the settings in `options`, if every word there is one with a name and a value."""
    if not _OPTIONS.fullmatch(options):
        return set()
    return {name for found in re.findall(_OPTION, options) for name in (found, found.replace("-", "_"))}


def _option_words(settings: Mapping[str, str]) -> set[str]:
    """Return the words of `options`, which a server reports without quotes.

    No message has a password without quotes; a short word, or a password like `password`, would be found by chance.
    """
    words = re.split(r"(?<!\\)[\s=]+", settings.get("options", ""))
    plain = {re.sub(r"\\(.)", r"\1", word) for word in words}
    plain |= {re.sub(r"^-.", "", word) for word in plain}  # the server writes `-c x` for `-cx`
    return {word for word in plain if len(word) >= _SHORTEST}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
