"""The messages that browsers get, as server-sent events and as the texts of a WebSocket. Without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

__all__ = [
    "CHANGE",
    "CHANGES",
    "DOCUMENTS",
    "VALUE",
    "BrowserMessage",
    "MessageForm",
    "heartbeat",
    "reset",
    "retry_text",
    "server_sent",
    "socket_text",
]

CHANGE: Final = "change"
DOCUMENTS: Final = "documents"
CHANGES: Final = "changes"
VALUE: Final = "value"


class BrowserMessage(NamedTuple):
    """One message to a browser.

    Attributes:
        event: its name, such as `change`.
        token: where to resume after it, as text; `None` leaves the browser's token as it is.
        data: JSON text.
    """

    event: str
    token: str | None
    data: bytes


MessageForm: TypeAlias = "Callable[[BrowserMessage], bytes]"
"""Writes a message in the form of a transport."""


def heartbeat(token: str | None, mode: str, time: datetime) -> BrowserMessage:
    """Make the message that says that nothing is lost, and moves the browser's token on."""
    return BrowserMessage(
        "heartbeat", token, orjson.dumps({"mode": mode, "time": time.isoformat(timespec="milliseconds")})
    )


def reset(token: str | None, reason: str) -> BrowserMessage:
    """Make the message that tells a page to drop what it has."""
    return BrowserMessage("reset", token, orjson.dumps({"reason": reason}))


def server_sent(message: BrowserMessage) -> bytes:
    """Write a message as a server-sent event."""
    data = message.data
    if b"\n" in data or b"\r" in data:  # a column of type json keeps the line breaks that were written
        data = b"\ndata: ".join(data.splitlines())
    token = b"" if message.token is None else b"id: %b\n" % message.token.encode()
    return b"event: %b\n%bdata: %b\n\n" % (message.event.encode(), token, data)


def retry_text(retry_s: float) -> bytes:
    """Write how long a browser waits before it reconnects."""
    return b"retry: %d\n\n" % round(retry_s * 1000)


def socket_text(message: BrowserMessage) -> bytes:
    """Write a message as the JSON text that a WebSocket sends."""
    shape = {"event": message.event, "id": message.token, "data": orjson.Fragment(message.data)}
    return orjson.dumps(shape)
