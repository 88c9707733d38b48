"""Where a relay writes: the URL of a log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pgdoc.errors import InvalidInput

__all__ = ["ENGINES", "LogTarget", "url_host"]

ENGINES: Final = {
    "nats": "nats",
    "tls": "nats",
    "redis": "redis",
    "rediss": "redis",
    "kafka": "kafka",
    "http": "webhook",
    "https": "webhook",
}
"""The engine of each scheme."""

_ENCODE: Final = "percent-encode the characters / ? # @ [ ] in user and password"
_FORM: Final = "nats://host/STREAM, redis://host/NAME, kafka://host/TOPIC or https://host/path"


@dataclass(frozen=True, slots=True)
class LogTarget:
    """A log: an engine, its servers, and the name of the log there.

    Attributes:
        engine: `nats`, `redis`, `kafka` or `webhook`.
        shown: the URL without user, password and options, for messages.
        servers: `(host, port)` of each server; the port is `None` for the usual one.
        name: the path of the URL.
        is_secure: whether the scheme asks for TLS.
        options: the query of the URL; each engine knows its own.
    """

    engine: str
    shown: str
    servers: tuple[tuple[str, int | None], ...]
    name: str
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    is_secure: bool
    options: dict[str, str] = field(repr=False, hash=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL such as `nats://host1,host2:4223/ORDERS?replicas=3`.

        Raises:
            InvalidInput: it is not the URL of a log.
        """
        if not isinstance(url, str):
            raise InvalidInput(f"a log is named by a URL, such as {_FORM}; got {type(url).__name__}")
        # No message may show what could belong to a password: an unencoded / ? or # in it moves the end of the host.
        try:
            parts = urlsplit(url)
        except ValueError:
            raise InvalidInput(f"the URL of a log can't be read: {_ENCODE}, and use {_FORM}") from None
        if parts.scheme not in ENGINES:
            raise InvalidInput(f"no log has the scheme {parts.scheme!r}: use {_FORM}")
        if "@" in parts.path + parts.fragment or ("@" in parts.query and "@" not in parts.netloc and not parts.path):
            raise InvalidInput(f"the URL of a log has an @ after the host: {_ENCODE}, and use {_FORM}")
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        shown = f"{parts.scheme}://{hosts}{parts.path}"
        options = _options(parts.query)
        servers = tuple(_server(each, shown) for each in hosts.split(","))
        return cls(
            engine=ENGINES[parts.scheme],
            shown=shown,
            servers=servers,
            name=unquote(parts.path.strip("/")),
            user=unquote(user) or None,
            password=unquote(password) or None,
            is_secure=parts.scheme in ("tls", "rediss", "https"),
            options=options,
        )

    @property
    def key(self) -> str:
        """The log in the database that has its groups' positions, where the way to its servers does not matter."""
        return f"{self.engine}:{self.name}"

    def check_options(self, known: frozenset[str]) -> None:
        """Refuse an option that the engine does not know: a misspelled one would have no effect.

        Raises:
            InvalidInput: there is one.
        """
        unknown = sorted(self.options.keys() - known)
        if unknown:
            raise InvalidInput(f"{self.shown} has no option {unknown[0]!r}: use one of {', '.join(sorted(known))}")


def url_host(host: str) -> str:
    """Return a host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InvalidInput(f"the options of a log's URL must be name=value, joined by &: {_ENCODE}") from None
    options: dict[str, str] = {}
    for name, value in pairs:
        if name in options:
            raise InvalidInput(f"the URL of a log has the option {name!r} twice: leave one out")
        options[name] = value
    return options


def _server(text: str, shown: str) -> tuple[str, int | None]:
    """Return the host and port of `host`, `host:port`, or `[address]:port`."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise InvalidInput(f"{shown} names no server ({exc}): use {_FORM}") from exc
    if not host:
        raise InvalidInput(f"{shown} names no server: use {_FORM}")
    return host, port
