# Written by .ci/twins.py from pgdoc/_async/live_sources.py: change that file, and run it.
"""The sources of a store's live queries: one for each collection or table that is followed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from pgdoc._sync.live_source import LiveSource
from pgdoc.errors import StreamError
from pgdoc.runtime.fork import FORKED, remember

if TYPE_CHECKING:
    from pgdoc._sync.session import Session
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.live.inbox import LiveInbox
    from pgdoc.live.shared import LiveWanted, SharedQuery

__all__ = ["LiveSources"]

C = TypeVar("C")


class LiveSources:
    """Opens a source for the first live query on a collection or table, and closes it after the last."""

    def __init__(self, backend: StreamBackend, session: Session) -> None:
        self.backend, self.session = backend, session
        self._lock = threading.Lock()  # guards what follows; held for a few steps
        self._sources: dict[str, LiveSource] = {}
        remember(self)

    def attach(self, name: str, wanted: LiveWanted[C], inbox: LiveInbox[C]) -> tuple[LiveSource, SharedQuery[C]]:
        """Let a handle follow a query on a collection or table."""
        while True:
            source = self._source_of(name)
            with source.opening:
                if not source.is_open and not source.is_over:
                    self._open(source)
                query = source.join(wanted, inbox)
            if query is not None:
                return source, query

    def _source_of(self, name: str) -> LiveSource:
        self.backend.hub.check_usable()
        with self._lock:
            source = self._sources.get(name)
            if source is None or source.is_over:
                for each in [each for each in self._sources.values() if each.is_over]:
                    del self._sources[each.name]
                source = self._sources[name] = LiveSource(self.backend, self.session, name)
            return source

    def _open(self, source: LiveSource) -> None:
        try:
            source.open()
        except BaseException:
            source.close()
            raise

    def close(self) -> None:
        """End all live queries."""
        with self._lock:
            sources, self._sources = list(self._sources.values()), {}
        for source in sources:
            source.close()

    def after_fork(self) -> None:
        """Leave the sources to the parent: their threads do not exist here."""
        self._lock = threading.Lock()
        sources: list[Any] = list(self._sources.values())
        self._sources = {}
        for source in sources:
            source.after_fork(StreamError(FORKED))
