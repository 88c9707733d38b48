"""Server-sent events as a response of Starlette: `sse`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from pgdoc.web.closing import watch_closing
from pgdoc.web.messages import retry_text, server_sent
from pgdoc.web.subscriber import Subscriber, check_options, check_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from pgdoc.web.subscriber import WebSource
    from pgdoc.web.views import SubscriberView

__all__ = ["EventStream", "sse"]

logger = logging.getLogger("pgdoc.web")

_OPEN_S: Final = 1.0  # how long an error can still be an HTTP error
_LAST_WRITE_S: Final = 0.5
_HEADERS: Final = {
    "Cache-Control": "no-store, no-transform",  # a proxy that compresses would buffer
    "X-Accel-Buffering": "no",  # nginx
}


def sse(  # noqa: PLR0913 (the contract)
    request: Request,
    source: WebSource,
    *,
    view: SubscriberView | None = None,
    after: str | None = None,
    heartbeat: float = 15.0,
    retry: float = 1.0,
) -> EventStream:
    """Return a response of server-sent events, for the browser's `EventSource`.

    Each event's id is its resume token. A browser that reconnects sends it as `Last-Event-ID`, and gets the next event.
    Its first request may send a token as the query parameter `after`.

    Args:
        request: the request, of Starlette or FastAPI.
        source: what `watch()`, `live()`, `live_count()`, `live_sum()` or `live_average()` of an `AsyncStore` returns,
            neither awaited nor entered; or a `Broadcast`.
        view: a function, or coroutine function, that decides what this browser sees. It gets each event, or of a live
            query each document, and returns `True` for what it sees as it is, `None` or `False` for what is hidden, or
            what it gets instead: an event or document, or any value that JSON can represent.
        after: the token of the first request, instead of the query parameter.
        heartbeat: the longest time between two `heartbeat` events, in seconds. Their id moves on while nothing matches.
        retry: the seconds after which the browser reconnects.

    Raises:
        TypeError: `source` is of another kind, such as a stream of the sync `Store`.
        ValueError: the stream is open, or has a consumer or a position of its own; or a time is not positive.
    """
    check_source(source)
    check_options(view, heartbeat=heartbeat, retry=retry)
    token = request.headers.get("last-event-id") or (request.query_params.get("after") if after is None else after)
    return EventStream(source, token, view=view, heartbeat=heartbeat, retry=retry)


class EventStream(Response):
    """The response that `sse` returns. It opens its source when the server sends it."""

    media_type = "text/event-stream"

    def __init__(  # noqa: PLR0913 (those of `sse`)
        self,
        source: WebSource,
        after: str | None,
        *,
        view: SubscriberView | None,
        heartbeat: float,
        retry: float,
        status_code: int = 200,  # FastAPI reads the default for the description of `response_class`
    ) -> None:
        super().__init__(status_code=status_code, headers=_HEADERS)
        del self.headers["content-length"]
        self._source, self._after = source, after
        self._view, self._heartbeat_s, self._retry_s = view, heartbeat, retry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the browser disconnects, the source ends, or the server shuts down.

        Raises:
            PgdocError: the source can't be opened.
        """
        if scope["method"] == "HEAD":
            await self._start(send)
            await _end(send)
            return
        with watch_closing() as closing:
            subscriber = Subscriber(
                self._source, self._after, view=self._view, form=server_sent, heartbeat_s=self._heartbeat_s
            )
            try:
                await subscriber.begin(_OPEN_S)
                await self._start(send)
                await self._deliver(subscriber, receive, send, closing)
            finally:
                await subscriber.close()
        if self.background is not None:
            await self.background()

    async def _deliver(self, subscriber: Subscriber, receive: Receive, send: Send, closing: asyncio.Event) -> None:
        async def write(texts: Sequence[bytes]) -> None:
            await send({"type": "http.response.body", "body": b"".join(texts), "more_body": True})

        await write([retry_text(self._retry_s)])
        sending, has_gone = await subscriber.deliver(write, _disconnected(receive), closing)
        if not sending.cancelled() and (error := sending.exception()) is not None and not isinstance(error, OSError):
            logger.error("a subscriber's stream failed", exc_info=error)
        if not has_gone:
            await _end(send)

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(send: Send) -> None:
    """End the response. A browser that reads nothing does not get to see it."""
    try:
        async with asyncio.timeout(_LAST_WRITE_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except (TimeoutError, OSError):
        pass
