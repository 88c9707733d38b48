"""The same messages over a WebSocket: `websocket`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from starlette.websockets import WebSocketDisconnect, WebSocketState

from pgdoc.errors import PgdocError
from pgdoc.web.closing import watch_closing
from pgdoc.web.messages import socket_text
from pgdoc.web.subscriber import Subscriber, check_options, check_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.websockets import WebSocket

    from pgdoc.web.subscriber import WebSource
    from pgdoc.web.views import SubscriberView

__all__ = ["websocket"]

logger = logging.getLogger("pgdoc.web")

_LAST_WRITE_S: Final = 0.5
NORMAL, FAILED, RESTARTING, TRY_AGAIN = 1000, 1011, 1012, 1013  # RFC 6455 and its registry of close codes


async def websocket(
    websocket: WebSocket,
    source: WebSource,
    *,
    view: SubscriberView | None = None,
    after: str | None = None,
    heartbeat: float = 15.0,
) -> None:
    """Send a stream, live query or broadcast over a WebSocket until either side closes it.

    Each message is a JSON object with `event`, `id` and `data`, as the parts of a server-sent event. A client resumes
    with the last `id` as the query parameter `after`. To take it from the client's first message, accept the WebSocket,
    read that message, and pass the token. What the client sends later is ignored.

    Args:
        websocket: the WebSocket, of Starlette or FastAPI, accepted or not.
        source: as for `sse`.
        view: as for `sse`.
        after: the token to resume after, instead of the query parameter.
        heartbeat: the longest time between two heartbeats, in seconds.

    Raises:
        TypeError: `source` is of another kind, such as a stream of the sync `Store`.
        ValueError: the stream is open, or has a consumer or a position of its own; or `heartbeat` is not positive.
    """
    check_source(source)
    check_options(view, heartbeat=heartbeat)
    if websocket.application_state is WebSocketState.CONNECTING:
        await websocket.accept()
    token = websocket.query_params.get("after") if after is None else after
    with watch_closing() as closing:
        subscriber = Subscriber(source, token, view=view, form=socket_text, heartbeat_s=heartbeat)
        try:
            code = await _deliver(subscriber, websocket, closing)
        finally:
            await subscriber.close()
        if code is not None:
            with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):  # the server may have closed it
                async with asyncio.timeout(_LAST_WRITE_S):
                    await websocket.close(code)


async def _deliver(subscriber: Subscriber, websocket: WebSocket, closing: asyncio.Event) -> int | None:
    """Send messages, and return the code to close with; `None` if the client has gone."""

    async def write(texts: Sequence[bytes]) -> None:
        for text in texts:
            await websocket.send_text(text.decode())

    sending, has_gone = await subscriber.deliver(write, _disconnected(websocket), closing)
    if has_gone:
        return None
    if sending.cancelled():
        return RESTARTING
    error = sending.exception()
    if error is None:
        return NORMAL if sending.result() else TRY_AGAIN
    if isinstance(error, WebSocketDisconnect | OSError):
        return None
    if isinstance(error, PgdocError):
        return TRY_AGAIN
    logger.error("a subscriber's stream failed", exc_info=error)
    return FAILED


async def _disconnected(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
