"""A connection to NATS: nats-py, with its errors mapped to pgdoc's.

It does not reconnect by itself: whoever uses it must look at the log again first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, LogRefused, LogUnreachable
from pgdoc.relay.durations import seconds_of
from pgdoc.relay.extras import needing

with needing("nats"):
    import nats.aio.client
    import nats.errors
    import nats.js.errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.js import JetStreamContext

    from pgdoc.relay.targets import Target

__all__ = ["CONNECTION_OPTIONS", "NatsConnection", "mapped"]

CONNECTION_OPTIONS: Final = frozenset({"creds", "nkey", "ca", "cert", "key", "timeout", "domain"})

_TIMEOUT_S: Final = 5.0
_PORT: Final = 4222
_API_DENIED: Final = "permissions violation"


@contextmanager
def mapped(subject: str) -> Iterator[None]:
    """Map the errors of nats-py to pgdoc's.

    Raises:
        LogUnreachable: the server does not answer, or the connection was lost.
        LogRefused: it refuses.
    """
    try:
        yield
    except nats.errors.AuthorizationError as exc:
        raise LogRefused(f"{subject}: the server refuses the credentials", reason="credentials") from exc
    except nats.js.errors.APIError as exc:
        if exc.code == 503:
            raise LogUnreachable(f"{subject}: JetStream does not answer now ({exc.description})") from exc
        raise LogRefused(f"{subject}: {exc.description} (error {exc.err_code})", reason="config") from exc
    except (nats.errors.Error, OSError, TimeoutError) as exc:
        raise LogUnreachable(f"{subject}: {type(exc).__name__}: {exc}") from exc


class NatsConnection:
    """One connection.

    Attributes:
        client: that of nats-py, while it is open.
        lost: set when the connection is lost.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.client: nats.aio.client.Client | None = None
        self.lost = asyncio.Event()
        self._timeout_s = seconds_of(target, "timeout") or _TIMEOUT_S
        self._last_error: BaseException | None = None

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream's client."""
        if self.client is None:
            raise LogUnreachable(f"{self.target.shown}: the connection is closed")
        return self.client.jetstream(timeout=self._timeout_s, domain=self.target.options.get("domain"))

    async def open(self) -> None:
        """Connect anew.

        Raises:
            LogUnreachable: no server answers.
            LogRefused: the server refuses the credentials.
        """
        await self.close()
        self.lost, self._last_error = asyncio.Event(), None
        client = self.client = nats.aio.client.Client()
        with mapped(self.target.shown):
            try:
                await asyncio.wait_for(client.connect(**self._options()), 2 * self._timeout_s + 1)
            except (TimeoutError, nats.errors.NoServersError) as exc:
                raise self._last_error or exc from exc

    def _options(self) -> dict[str, Any]:
        target = self.target
        options = target.options
        return {
            "servers": [f"nats://{_host(host)}:{port or _PORT}" for host, port in target.servers],
            "name": "pgdoc",
            "user": target.user,
            "password": target.password,
            "user_credentials": options.get("creds"),
            "nkeys_seed": options.get("nkey"),
            "tls": self._tls(),
            "allow_reconnect": False,
            "connect_timeout": self._timeout_s,
            "error_cb": self._note_error,
            "disconnected_cb": self._note_loss,
            "closed_cb": self._note_loss,
        }

    def _tls(self) -> ssl.SSLContext | None:
        options = self.target.options
        if not self.target.is_secure and not options.keys() & {"ca", "cert"}:
            return None
        try:
            context = ssl.create_default_context(cafile=options.get("ca"))
            if "cert" in options:
                context.load_cert_chain(options["cert"], options.get("key"))
        except (OSError, ssl.SSLError) as exc:
            raise InvalidInput(f"{self.target.shown}: a certificate file can't be read: {exc}") from exc
        return context

    async def _note_error(self, error: BaseException) -> None:
        self._last_error = error

    async def _note_loss(self) -> None:
        self.lost.set()

    def check_open(self) -> None:
        """Raise `LogUnreachable` if the connection was lost."""
        if self.client is None or self.lost.is_set() or not self.client.is_connected:
            raise LogUnreachable(f"{self.target.shown}: the connection was lost")

    async def close(self) -> None:
        """Close the connection; nothing that is buffered is sent."""
        client, self.client = self.client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), self._timeout_s)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
