"""Sends requests to a webhook, blocking and awaiting. Only this module uses httpx.

It uses httpx's transports without its clients. So no redirect is followed, no proxy or .netrc of the environment is
used, no cookie is kept, and no URL is logged. A receiver that answers byte by byte can't exceed the time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput
from pgdoc.relay.answers import Answer, Unanswered
from pgdoc.relay.extras import needing_extra

with needing_extra("webhooks"):
    import httpcore
    import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.relay.webhook_requests import Endpoint

__all__ = ["AsyncPoster", "Poster"]

_MOST_BODY_BYTES: Final = 4096
_BODY_S: Final = 2.0
"""For the body of an answer: its status is known by then."""
_CONNECT_S: Final = 5.0


class _Requests:
    """What both kinds of poster have in common."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, ca_file: str | None) -> None:
        self._endpoint, self._timeout_s = endpoint, timeout_s
        try:
            httpx.URL(endpoint.url)
        except httpx.InvalidURL as exc:
            raise InvalidInput(f"{endpoint.shown} is not the URL of a webhook: {exc}") from exc
        self._verify: ssl.SSLContext | bool = True if ca_file is None else _trusting(ca_file)

    def _request(self, method: str, body: bytes, headers: dict[str, str]) -> httpx.Request:
        timeout = httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, _CONNECT_S))
        extensions = {"timeout": timeout.as_dict()}
        return httpx.Request(method, self._endpoint.url, headers=headers, content=body, extensions=extensions)

    def _is_late(self) -> Unanswered:
        return Unanswered(f"it did not answer within {self._timeout_s:g} s")


class Poster(_Requests):
    """Sends requests, and blocks. Several threads may use it.

    Args:
        timeout_s: for one request, from the connection to the status of the answer.
        connections: how many are open at most.
        ca_file: certificates to trust instead of those of public authorities.

    Raises:
        InvalidInput: `ca_file` can't be read.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, connections: int, ca_file: str | None) -> None:
        super().__init__(endpoint, timeout_s, ca_file)
        self._deadline = _RequestDeadline()
        self._transport = httpx.HTTPTransport(verify=self._verify, trust_env=False)
        context = httpx.create_ssl_context(verify=self._verify, trust_env=False)
        # httpx has no limit for a whole request, and a thread can't be cancelled: the sockets know the deadline.
        self._transport._pool = httpcore.ConnectionPool(  # noqa: SLF001 (a test fails if httpx changes it)
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=5.0,
            network_backend=_Backend(self._deadline),
        )

    def send(self, method: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send a request, and return the answer.

        Raises:
            Unanswered: there is none.
        """
        with _mapped(self), self._deadline.after(self._timeout_s):
            response = self._transport.handle_request(self._request(method, body, headers))
        text = bytearray()
        try:
            with contextlib.suppress(httpx.HTTPError), self._deadline.after(_BODY_S):
                for chunk in response.iter_raw():
                    text += chunk
                    if len(text) >= _MOST_BODY_BYTES:
                        break
        finally:
            response.close()
        return Answer(response.status_code, response.headers, bytes(text[:_MOST_BODY_BYTES]))

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()


class AsyncPoster(_Requests):
    """See `Poster`. It is bound to the event loop that uses it."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, connections: int, ca_file: str | None) -> None:
        super().__init__(endpoint, timeout_s, ca_file)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._transport = httpx.AsyncHTTPTransport(verify=self._verify, trust_env=False, limits=limits)

    async def send(self, method: str, body: bytes, headers: dict[str, str]) -> Answer:
        """See `Poster`."""
        with _mapped(self):
            async with asyncio.timeout(self._timeout_s):
                response = await self._transport.handle_async_request(self._request(method, body, headers))
        text = bytearray()
        try:
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(_BODY_S):
                    async for chunk in response.aiter_raw():
                        text += chunk
                        if len(text) >= _MOST_BODY_BYTES:
                            break
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, bytes(text[:_MOST_BODY_BYTES]))

    async def close(self) -> None:
        """See `Poster`."""
        await self._transport.aclose()


@contextlib.contextmanager
def _mapped(poster: _Requests) -> Iterator[None]:
    try:
        yield
    except (httpx.TimeoutException, TimeoutError) as exc:
        raise poster._is_late() from exc  # noqa: SLF001 (of this module)
    except (httpx.HTTPError, UnicodeError) as exc:  # the second: the host can be no name
        said = _reason_of(exc)
        raise Unanswered(f"{type(exc).__name__}: {said}" if said else type(exc).__name__) from exc


def _reason_of(exc: BaseException) -> str:
    """Return what the first of the errors said that led to this one: the others say less, such as "all attempts"."""
    found: BaseException | None = exc
    said = ""
    while found is not None:
        said = str(found) or said
        parts = found.exceptions if isinstance(found, BaseExceptionGroup) else ()
        found = parts[0] if parts else found.__cause__ or found.__context__
    return said


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as exc:  # an SSLError is an OSError
        raise InvalidInput(f"ca_file {str(ca_file)!r} can't be read as certificates in PEM: {exc}") from exc


class _RequestDeadline(threading.local):
    """When the request of a thread must have ended, on the monotonic clock."""

    at: float | None = None

    @contextlib.contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Set it for the block."""
        self.at = time.monotonic() + seconds
        try:
            yield
        finally:
            self.at = None

    def left(self, timeout_s: float | None) -> float | None:
        """Return how long an operation may take that has this time limit itself.

        Raises:
            ReadTimeout: no time is left.
        """
        if self.at is None:
            return timeout_s
        left_s = self.at - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the time is up")
        return left_s if timeout_s is None else min(timeout_s, left_s)


class _Backend(httpcore.SyncBackend):
    """Opens sockets that keep to the deadline of the thread that uses them."""

    def __init__(self, deadline: _RequestDeadline) -> None:
        self._deadline = deadline

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *args: Any, **kwargs: Any) -> _Stream:
        """Connect to the first address of a server that answers; a socket would give each the whole time."""
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in _addresses_of(host, port):
            try:
                stream = super().connect_tcp(address, port, self._deadline.left(timeout), *args, **kwargs)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
            else:
                return _Stream(stream, self._deadline)
        raise failure


def _addresses_of(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise httpcore.ConnectError(str(exc)) from exc
    return [str(address[0]) for *_, address in found]


class _Stream(httpcore.NetworkStream):
    """A connection whose operations keep to the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _RequestDeadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is."""
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        for at in range(0, len(buffer), _PIECE):
            self._stream.write(buffer[at : at + _PIECE], self._deadline.left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        """Begin TLS."""
        found = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _Stream(found, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for."""
        return self._stream.get_extra_info(info)


_PIECE: Final = 1 << 16
"""Written at once, between two looks at the deadline."""
