"""Reading a live query for one subscriber."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.errors import InvalidResumeToken
from pgdoc.model.tokens import ResumeToken
from pgdoc.web.entries import ChangesEntry, DocumentsEntry
from pgdoc.web.reading import Batch

if TYPE_CHECKING:
    from pgdoc._async.live import AsyncLiveQuery

__all__ = ["LiveReading", "check_query", "parsed"]


class LiveReading:
    """A live query of one subscriber: all documents first, then the changes from place to place.

    Args:
        query: an unopened query; a query like it is opened.
        after: the token of a browser. If nothing has changed since, it gets no documents.
    """

    def __init__(self, query: AsyncLiveQuery[Any], after: str | None) -> None:
        self._query = query._again()  # noqa: SLF001 (the same package)
        self._after = after
        self._is_open = False

    @property
    def query(self) -> AsyncLiveQuery[Any]:
        """The query that it reads."""
        return self._query

    async def next(self, timeout_s: float) -> Batch:
        """See `Reading`."""
        query = self._query
        if not self._is_open:
            await query
            self._is_open = True
            return self._first()
        since = query.resume_token
        changes = await query.next_batch(max(0.0, timeout_s))
        token = query.resume_token
        return Batch([ChangesEntry(changes, since, token)] if changes else (), token, self._mode)

    def _first(self) -> Batch:
        token = self._query.resume_token
        if self._after is not None and self._after == str(token):
            return Batch((), token, self._mode)
        return Batch([DocumentsEntry(self._query.documents, token)], token, self._mode)

    @property
    def _mode(self) -> str:
        source = self._query._source  # noqa: SLF001
        return "live" if source is None else source._stream.stats().mode  # noqa: SLF001

    async def close(self) -> None:
        """End it."""
        await self._query.close()


def check_query(query: AsyncLiveQuery[Any]) -> None:
    """Refuse a live query that is open.

    Raises:
        ValueError: it is open, or closed.
    """
    if query._source is not None or query.closed:  # noqa: SLF001
        raise ValueError("the live query is open: pass what live() returns, without awaiting or entering it")


def parsed(text: str | None) -> ResumeToken | None:
    """Return the token that a browser sent, if it is one."""
    try:
        return ResumeToken.parse(text) if text else None
    except InvalidResumeToken:
        return None
