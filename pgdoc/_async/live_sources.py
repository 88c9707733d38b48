"""The sources of a store's live queries: one for each collection or table that is followed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from pgdoc._async.live_source import AsyncLiveSource
from pgdoc.errors import StreamError
from pgdoc.runtime.fork import FORKED, remember

if TYPE_CHECKING:
    from pgdoc._async.session import AsyncSession
    from pgdoc._async.stream_backend import AsyncStreamBackend
    from pgdoc.live.inbox import LiveInbox
    from pgdoc.live.shared import LiveWanted, SharedQuery

__all__ = ["AsyncLiveSources"]

C = TypeVar("C")


class AsyncLiveSources:
    """Opens a source for the first live query on a collection or table, and closes it after the last."""

    def __init__(self, backend: AsyncStreamBackend, session: AsyncSession) -> None:
        self.backend, self.session = backend, session
        self._lock = threading.Lock()  # guards what follows; held for a few steps
        self._sources: dict[str, AsyncLiveSource] = {}
        remember(self)

    async def attach(
        self, name: str, wanted: LiveWanted[C], inbox: LiveInbox[C]
    ) -> tuple[AsyncLiveSource, SharedQuery[C]]:
        """Let a handle follow a query on a collection or table."""
        while True:
            source = self._source_of(name)
            async with source.opening:
                if not source.is_open and not source.is_over:
                    await self._open(source)
                query = source.join(wanted, inbox)
            if query is not None:
                return source, query

    def _source_of(self, name: str) -> AsyncLiveSource:
        self.backend.hub.check_usable()
        with self._lock:
            source = self._sources.get(name)
            if source is None or source.is_over:
                for each in [each for each in self._sources.values() if each.is_over]:
                    del self._sources[each.name]
                source = self._sources[name] = AsyncLiveSource(self.backend, self.session, name)
            return source

    async def _open(self, source: AsyncLiveSource) -> None:
        try:
            await source.open()
        except BaseException:
            await source.close()
            raise

    async def close(self) -> None:
        """End all live queries."""
        with self._lock:
            sources, self._sources = list(self._sources.values()), {}
        for source in sources:
            await source.close()

    def after_fork(self) -> None:
        """Leave the sources to the parent: their threads do not exist here."""
        self._lock = threading.Lock()
        sources: list[Any] = list(self._sources.values())
        self._sources = {}
        for source in sources:
            source.after_fork(StreamError(FORKED))
