"""Reading a live query for one subscriber."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from pgdoc._async.live import AsyncLiveQuery
from pgdoc._async.live_aggregates import AsyncLiveAggregate
from pgdoc.errors import InvalidResumeToken
from pgdoc.model.tokens import ResumeToken
from pgdoc.web.entries import ChangesEntry, DocumentsEntry, ValueEntry
from pgdoc.web.reading import ReadBatch

if TYPE_CHECKING:
    from pgdoc.web.entries import SourceEntry

__all__ = ["LIVE", "Live", "LiveReading", "check_query", "parsed"]

Live: TypeAlias = AsyncLiveQuery[Any] | AsyncLiveAggregate[Any]
LIVE = (AsyncLiveQuery, AsyncLiveAggregate)


class LiveReading:
    """A live query of one subscriber: all documents first, then the changes from place to place.

    Of a count, sum or average: the value at each place.

    Args:
        query: an unopened query; a query like it is opened.
        after: the token of a browser. If nothing has changed since, it gets no documents.
    """

    def __init__(self, query: Live, after: str | None) -> None:
        self._query = query._again()  # noqa: SLF001 (the same package)
        self._after = after
        self._is_open = False

    def whole(self) -> SourceEntry:
        """Return all documents, or the value, at the present place."""
        query = self._query
        token = query.resume_token
        if isinstance(query, AsyncLiveQuery):
            return DocumentsEntry(query.documents, token)
        if query._has_groups:  # noqa: SLF001
            groups = [{"group": group, "value": value} for group, value in query.groups.items()]
            return ValueEntry({"groups": groups}, token)
        return ValueEntry({"value": query.value}, token)

    async def next(self, timeout_s: float) -> ReadBatch:
        """See `SourceReading`."""
        query = self._query
        if not self._is_open:
            await query
            self._is_open = True
            return self._first()
        since = query.resume_token
        timeout_s = max(0.0, timeout_s)
        if isinstance(query, AsyncLiveQuery):
            changes = await query.next_batch(timeout_s)
            token = query.resume_token
            return ReadBatch([ChangesEntry(changes, since, token)] if changes else (), token, self._mode)
        entries = [self.whole()] if await query.next_batch(timeout_s) else []
        return ReadBatch(entries, query.resume_token, self._mode)

    def _first(self) -> ReadBatch:
        whole = self.whole()
        is_same = self._after is not None and self._after == whole.token
        return ReadBatch(() if is_same else [whole], whole.place, self._mode)

    @property
    def _mode(self) -> str:
        source = self._query._source  # noqa: SLF001
        return "live" if source is None else source._stream.stats().mode  # noqa: SLF001

    async def close(self) -> None:
        """End it."""
        await self._query.close()


def check_query(query: Live) -> None:
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
