"""A connection to NATS: nats-py, with its errors mapped to pgdoc's.

It does not reconnect by itself: the log must be looked at again first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, LogRefused, LogUnreachable
from pgdoc.relay.durations import seconds_of
from pgdoc.relay.extras import needing_extra
from pgdoc.relay.targets import url_host

with needing_extra("nats"):
    import nats.aio.client
    import nats.errors
    import nats.js.errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from pgdoc.errors import PgdocError
    from pgdoc.relay.targets import LogTarget

__all__ = ["CONNECTION_OPTIONS", "NatsConnection", "map_nats_errors"]

CONNECTION_OPTIONS: Final = frozenset({"creds", "nkey", "ca", "cert", "key", "timeout", "domain"})

_TIMEOUT_S: Final = 5.0
_PORT: Final = 4222
_UNKNOWN_USER: Final = ("authorization violation", "authentication expired", "authentication revoked", "tls required")
_DENIED: Final = "permissions violation"
_DISABLED: Final = {10039, 10076}
"""JetStream is not enabled for the account, or at all."""
_PASSING: Final = {10005, 10008, 10009, 10118}
"""No suitable peers now, JetStream is unavailable now, no leader, a stream that is offline."""


@contextmanager
def map_nats_errors(subject: str) -> Iterator[None]:
    """Map the errors of nats-py to pgdoc's.

    Raises:
        LogUnreachable: the server does not answer, or the connection was lost.
        LogRefused: it refuses.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise LogRefused(
            f"{subject}: the server's certificate is not trusted ({exc.verify_message}): name its authority with "
            "ca=FILE",
            reason="credentials",
        ) from exc
    except nats.js.errors.ServiceUnavailableError as exc:
        if exc.err_code in _DISABLED:
            raise _disabled(subject) from exc
        raise LogUnreachable(
            f"{subject}: JetStream does not answer now ({exc.description or 'it may have no leader'})"
        ) from exc
    except nats.js.errors.APIError as exc:
        if exc.err_code in _DISABLED:
            raise _disabled(subject) from exc
        if exc.err_code in _PASSING:
            raise LogUnreachable(f"{subject}: JetStream does not answer now ({exc.description})") from exc
        raise LogRefused(f"{subject}: {exc.description} (error {exc.err_code})", reason="config") from exc
    except nats.errors.SecureConnRequiredError as exc:
        raise LogRefused(
            f"{subject}: the server has no TLS, which the URL asks for: no credentials were sent", reason="credentials"
        ) from exc
    except (nats.errors.Error, OSError, TimeoutError) as exc:
        if any(each in str(exc).lower() for each in _UNKNOWN_USER):
            raise LogRefused(f"{subject}: the server refuses the credentials ({exc})", reason="credentials") from exc
        found = str(exc) or "no answer in time"
        raise LogUnreachable(f"{subject}: {found}: check that the server runs, and that the URL names it") from exc


def _disabled(subject: str) -> LogRefused:
    return LogRefused(
        f"{subject}: JetStream is not enabled: start the server with -js, or enable it for the account", reason="config"
    )


class NatsConnection:
    """One connection.

    Attributes:
        client: that of nats-py, while it is open.
        lost: set when the connection is lost.
    """

    def __init__(self, target: LogTarget) -> None:
        self.target = target
        self.client: nats.aio.client.Client | None = None
        self.lost = asyncio.Event()
        self._expected: dict[str, asyncio.Future[bytes]] = {}  # answers, by the last part of their subject
        self._inbox, self._asked = "", 0
        self._timeout_s = seconds_of(target, "timeout") or _TIMEOUT_S
        self._last_error: BaseException | None = None

    @contextmanager
    def asking(self, subject: str) -> Iterator[None]:
        """Map the errors of requests; one that lacks a right is never answered.

        Raises:
            LogUnreachable: the server does not answer.
            LogRefused: it refuses.
        """
        try:
            with map_nats_errors(subject):
                yield
        except LogUnreachable as exc:
            raise self._refusal or exc from exc.__cause__

    @property
    def _refusal(self) -> LogRefused | None:
        text = str(self._last_error or "")
        if _DENIED not in text.lower():
            info = {} if self.client is None else self.client._server_info  # noqa: SLF001
            is_alone = bool(info) and not info.get("cluster")
            return _disabled(self.target.shown) if is_alone and not info.get("jetstream") else None
        return LogRefused(f"{self.target.shown}: the user lacks a right: {text}", reason="rights")

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
        client = self.client = _Client()
        with map_nats_errors(self.target.shown), needing_extra("nats"):  # nats-py imports nkeys only for creds and nkey
            try:
                await asyncio.wait_for(client.connect(**self._options()), 2 * self._timeout_s + 1)
            except (TimeoutError, nats.errors.NoServersError) as exc:
                raise self._last_error or exc from exc
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._take)

    async def open_whole(self) -> None:
        """Connect anew; if that is cancelled, close what it has opened, since nats-py would leave a socket."""
        opening = asyncio.ensure_future(self.open())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])
            await self.close()
            raise

    def _options(self) -> dict[str, Any]:
        target = self.target
        options = target.options
        for name in ("creds", "nkey"):
            if name in options and not os.access(options[name], os.R_OK):
                raise InvalidInput(f"{target.shown}: the file of {name}= can't be read: check its name and rights")
        return {
            "servers": [f"nats://{url_host(host)}:{port or _PORT}" for host, port in target.servers],
            "name": "pgdoc",
            "user": target.user if target.password is not None else None,
            "password": target.password,
            "token": target.user if target.password is None else None,
            "user_credentials": options.get("creds"),
            "nkeys_seed": options.get("nkey"),
            "tls": self._tls(),
            "allow_reconnect": False,
            # To connect, each server is tried twice: by default, it would be tried for two minutes.
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0.2,
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

    def expect(self) -> tuple[str, asyncio.Future[bytes]]:
        """Return where an answer is expected, as HPUB has it, and the future of its body.

        The body is empty if nobody answers on the subject of the question.
        """
        self._asked += 1
        name = str(self._asked)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._expected[name] = answer
        answer.add_done_callback(lambda _: self._expected.pop(name, None))
        return f"{self._inbox}.{name} ", answer

    async def _take(self, message: Msg) -> None:
        answer = self._expected.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(message.data)

    async def write(self, frames: bytes) -> None:
        """Write whole protocol messages, and wait while the socket takes no more: `publish` takes three times as long.

        Raises:
            LogUnreachable: the connection was lost.
        """
        await self.write_soon(frames).drain()

    def write_soon(self, frames: bytes) -> Any:
        """Write whole protocol messages without waiting, and return what can wait: nats-py's transport.

        Raises:
            LogUnreachable: the connection was lost.
        """
        self.check_open()
        transport: Any = self.client._transport  # type: ignore[union-attr]  # noqa: SLF001 (check_open has looked)
        transport.write(frames)
        return transport

    async def _note_error(self, error: BaseException) -> None:
        self._last_error = error
        if self._refusal is not None:
            self._fail(self._refusal)

    async def _note_loss(self) -> None:
        self.lost.set()
        self._fail(LogUnreachable(f"{self.target.shown}: the connection was lost"))

    def _fail(self, error: PgdocError) -> None:
        """Let all answers fail that are expected."""
        for answer in list(self._expected.values()):
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # asyncio would log one that nobody waits for

    def check_open(self) -> None:
        """Raise `LogUnreachable` if the connection was lost."""
        if self.client is None or self.lost.is_set() or not self.client.is_connected:
            raise LogUnreachable(f"{self.target.shown}: the connection was lost")

    async def close(self) -> None:
        """Close the connection; nothing that is buffered is sent."""
        client, self.client = self.client, None
        if client is None:
            return
        self._abort(client)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.close(), self._timeout_s)
        await self._note_loss()

    @staticmethod
    def _abort(client: Any) -> None:
        """Close the socket at once: nats-py would wait until a server that is silent has taken what is buffered."""
        client._pending.clear()  # noqa: SLF001
        client._pending_data_size = 0  # noqa: SLF001
        writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001
        if writer is not None:
            writer.transport.abort()


class _Client(nats.aio.client.Client):
    """nats-py's, which would send the credentials to a server without TLS even where TLS is asked for."""

    def _connect_command(self) -> bytes:
        if self.options.get("tls") is not None and not (self._server_info or {}).get("tls_required"):
            raise nats.errors.SecureConnRequiredError
        return super()._connect_command()
