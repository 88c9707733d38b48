"""The request that carries an event to a webhook."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.relay import cloudevents
from pgdoc.relay.formats import FORMATS, JSON, format_named
from pgdoc.relay.signing import webhook_id
from pgdoc.relay.targets import url_host

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.relay.debezium import SourceNames
    from pgdoc.relay.formats import Format
    from pgdoc.relay.signing import Secrets

__all__ = ["WEBHOOK_FORMATS", "Endpoint", "WebhookMessage", "WebhookMessages"]

BINARY: Final = "cloudevents-binary"
WEBHOOK_FORMATS: Final = (*FORMATS, BINARY)
_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a webhook is received.

    Attributes:
        url: without user and password.
        shown: without the query as well, which may hold a secret: for messages.
        authorization: the header for the user and password of the URL, if it has them.
        is_plain: whether others can read on the way: it is neither HTTPS nor this machine.
    """

    url: str = field(repr=False)
    shown: str
    authorization: str | None = field(repr=False)
    is_plain: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL such as `https://example.com/hooks`.

        Raises:
            InvalidInput: it is not the URL of a webhook. The message shows no password and no query.
        """
        if not isinstance(url, str):
            raise InvalidInput(f"the URL of a webhook must be text, got {short_repr(url)}")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise InvalidInput(f"the URL of a webhook can't be read ({exc}): use https://host/path") from exc
        if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable():
            raise InvalidInput(
                f"a URL with the scheme {short_repr(parts.scheme)} and the host {short_repr(host)} is not that of a "
                "webhook: use https://host/path, in ASCII"
            )
        place = url_host(host) if port is None else f"{url_host(host)}:{port}"
        path = parts.path or "/"
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        return cls(
            url=urlunsplit((parts.scheme, place, path, parts.query, "")),
            shown=f"{parts.scheme}://{place}{path}",
            authorization=authorization,
            is_plain=parts.scheme == "http" and host not in _LOOPBACK,
        )


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """An event on its way to a webhook, without what changes with each attempt."""

    message_id: str
    body: bytes
    headers: dict[str, str] = field(repr=False)

    def signed(self, secrets: Secrets, timestamp: int) -> dict[str, str]:
        """Return the headers of an attempt at this time, in seconds since 1970."""
        return {
            **self.headers,
            "webhook-id": self.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": secrets.sign(self.message_id, timestamp, self.body),
        }


class WebhookMessages:
    """Makes the messages of one webhook.

    Args:
        name: of the format: one of `WEBHOOK_FORMATS`.
        names: for Debezium's envelope.

    Attributes:
        headers: those that all messages have.

    Raises:
        InvalidInput: there is no such format.
    """

    def __init__(self, endpoint: Endpoint, name: str, names: SourceNames) -> None:
        if name not in WEBHOOK_FORMATS:
            raise InvalidInput(f"format must be one of {', '.join(WEBHOOK_FORMATS)}, got {short_repr(name)}")
        self._format: Format | None = None if name == BINARY else format_named(name, names)
        content_type = JSON if self._format is None else self._format.content_type
        self.headers = {"content-type": content_type, "user-agent": _user_agent(), "accept-encoding": "identity"}
        if endpoint.authorization is not None:
            self.headers["authorization"] = endpoint.authorization

    def message(self, event: ChangeEvent) -> WebhookMessage:
        """Return the message of an event.

        Raises:
            UnreadableDocument: as `event.to_json()`.
        """
        body = event.to_json() if self._format is None else self._format.encode(event)
        headers = {**self.headers, **cloudevents.trace_context(event)}
        if self._format is None:
            headers.update(cloudevents.binary_headers(event))
        return WebhookMessage(webhook_id(event.resume_token), body, headers)


@lru_cache(maxsize=1)
def _user_agent() -> str:
    return f"pgdoc/{version('pgdoc')}"
