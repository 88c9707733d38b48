"""Reading a live query for one subscriber."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from pgdoc.errors import InvalidResumeToken
from pgdoc.model.tokens import ResumeToken
from pgdoc.web.entries import ChangesEntry, DocumentsEntry
from pgdoc.web.reading import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.model.documents import Document
    from pgdoc.web.entries import LiveChangeLike

__all__ = ["LiveQueryLike", "LiveReading"]


@runtime_checkable
class LiveQueryLike(Protocol):
    """An async live query."""

    @property
    def documents(self) -> list[Document]:
        """The result at the handle's place."""

    @property
    def resume_token(self) -> ResumeToken:
        """That place."""

    async def next_batch(self, timeout: float | None = None) -> Sequence[LiveChangeLike]:  # noqa: ASYNC109
        """Return all changes to the next place; nothing after `timeout`."""

    async def __aenter__(self) -> Self:
        """Open it."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it."""


class LiveReading:
    """A live query of one subscriber: all documents first, then the changes from place to place.

    Args:
        query: the query, which is entered here.
        after: the token of a browser. If nothing has changed since, it gets no documents.
    """

    def __init__(self, query: LiveQueryLike, after: str | None, *, hides: bool = False) -> None:
        self._query = query
        self._after = None if hides else after  # a view has to see all documents first
        self._stack = AsyncExitStack()
        self._is_open = False

    @property
    def query(self) -> LiveQueryLike:
        """The query."""
        return self._query

    async def next(self, timeout_s: float) -> Batch:
        """See `Reading`."""
        query = self._query
        if not self._is_open:
            await self._stack.enter_async_context(query)
            self._is_open = True
            return self._first()
        since = query.resume_token
        changes = await query.next_batch(max(0.0, timeout_s))
        if not changes:
            return Batch((), query.resume_token)
        return Batch([ChangesEntry(changes, since, query.resume_token)], query.resume_token)

    def _first(self) -> Batch:
        query = self._query
        token = query.resume_token
        if self._after is not None and self._after == str(token):
            return Batch((), token)
        return Batch([DocumentsEntry(query.documents, token)], token)

    async def close(self) -> None:
        """End it."""
        await self._stack.aclose()


def parsed(text: str | None) -> ResumeToken | None:
    """Return the token that a browser sent, if it is one."""
    try:
        return ResumeToken.parse(text) if text else None
    except InvalidResumeToken:
        return None
