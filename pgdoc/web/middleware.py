"""Middleware: the request in the metadata of what it writes, and pgdoc's errors as HTTP errors."""

from __future__ import annotations

import inspect
import logging
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response

from pgdoc.model.metadata import metadata
from pgdoc.model.read_errors import noting_read_errors
from pgdoc.web.hidden_errors import pgdoc_error_of
from pgdoc.web.problems import MEDIA_TYPE, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["PgdocMiddleware", "problem"]

logger = logging.getLogger("pgdoc.web")

_HEADER: Final = "x-request-id"
_ID: Final = re.compile(r"[!-~]{1,128}")  # visible ASCII: it goes into a header and into logs


class PgdocMiddleware:
    """ASGI middleware for the writes and the errors of a request.

    Every write of a request carries `request_id` and `user` as metadata, also those of sync endpoints,
    which run in threads. The id is that of the header `X-Request-ID`, or a new one; the response returns it, and
    `request.state.request_id` has it.

    A `PgdocError` that the application does not handle becomes a response of RFC 9457 (`application/problem+json`).
    One of status 500 or more is logged. Where a document of the response can't be read, FastAPI and pydantic raise
    errors of their own, which become the same response.

    Args:
        app: the application.
        user: a function, or coroutine function, of the request (an `HTTPConnection`) that returns the user's name, or
            another value that JSON can represent; `None` for no user. It runs before the endpoint and its dependencies.
        errors: whether to respond to errors.
    """

    def __init__(
        self, app: ASGIApp, *, user: Callable[[HTTPConnection], Any] | None = None, errors: bool = True
    ) -> None:
        self._app = app
        self._user = user
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application inside the request's metadata."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        has_started = False

        async def send_on(message: Message) -> None:
            nonlocal has_started
            if message["type"] in _STARTS:
                has_started = True
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        with noting_read_errors():
            try:
                with metadata(**await self._metadata(scope, request_id)):
                    await self._app(scope, receive, send_on)
            except Exception as exc:
                if has_started or not self._errors or scope["type"] != "http" or pgdoc_error_of(exc) is None:
                    raise
                await problem(HTTPConnection(scope), exc)(scope, receive, send_on)

    async def _metadata(self, scope: Scope, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = {"request_id": request_id}
        if self._user is not None:
            user = self._user(HTTPConnection(scope))
            if inspect.isawaitable(user):
                user = await user
            if user is not None:
                found["user"] = user
        return found


_STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")


def problem(request: HTTPConnection, exc: Exception) -> Response:
    """Return the response to an error, for `app.add_exception_handler(pgdoc.PgdocError, pgdoc.web.problem)`.

    `PgdocMiddleware` does so by itself. A status of 500 or more is logged, and its body has no message.

    Args:
        request: the request.
        exc: a `PgdocError`; inside `PgdocMiddleware(..., errors=False)` also an error that FastAPI or pydantic raise
            because a document can't be read.

    Raises:
        Exception: `exc`, if it is neither.
    """
    error = pgdoc_error_of(exc)
    if error is None:
        raise exc
    request_id = request.scope.get("state", {}).get("request_id")
    found = problem_of(error, has_if_match="if-match" in request.headers, request_id=request_id)
    if found.status >= 500:
        method, path = request.scope.get("method"), request.scope.get("path")
        logger.error("%s %s: status %d for %s", method, path, found.status, type(error).__name__, exc_info=error)
    return Response(found.body, found.status, found.headers, MEDIA_TYPE)


def _request_id(scope: Scope) -> str:
    sent = Headers(scope=scope).get(_HEADER, "")
    return sent if _ID.fullmatch(sent) else uuid.uuid4().hex
