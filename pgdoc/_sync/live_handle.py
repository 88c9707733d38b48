# Written by .ci/twins.py from pgdoc/_async/live_handle.py: change that file, and run it.
"""What the handles of live queries, aggregates and mirrors have in common."""

from __future__ import annotations

import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from pgdoc.errors import StreamClosed, StreamError
from pgdoc.live.inbox import LiveInbox, LivePlace
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.model.tokens import token_at
from pgdoc.runtime.primitives import Opening
from pgdoc.runtime.retry import growing_pause_s
from pgdoc.runtime.wakeup import Wakeup, wake
from pgdoc.streams.options import check_timeout

if TYPE_CHECKING:
    from pgdoc._sync.live_source import LiveSource
    from pgdoc._sync.live_sources import LiveSources
    from pgdoc.live.inbox import LiveBatch
    from pgdoc.live.shared import LiveWanted, SharedQuery
    from pgdoc.live.state import LiveState
    from pgdoc.model.tokens import ResumeToken

__all__ = ["LiveHandle"]

C = TypeVar("C")

_LONGEST_LOOK_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0
_ASK_AFTER_S: Final = 0.1


class LiveHandle(Opening, Generic[C]):
    """Follows a result that the database changes; each change is handed out once.

    A KeyboardInterrupt, or a cancelled call, loses no change: each method computes first, and then changes its state by
    plain assignments, see `pgdoc.streams.delivery`. Owned by the thread or task that reads it; any other may close it.
    """

    def __init__(self, sources: LiveSources, name: str, wanted: LiveWanted[C]) -> None:
        self._sources, self._name, self._wanted = sources, name, wanted
        self._wakeup = Wakeup()
        self._inbox: LiveInbox[C] = LiveInbox(partial(wake, self._wakeup))
        weakref.finalize(self, self._inbox.abandon)  # for handles that are dropped without close()
        # Set once, when the handle opens.
        self._source: LiveSource | None = None
        self._query: SharedQuery[C] | None = None
        # Where it stands. `_batch` is the last one that was taken, of which `_changes[:_next]` are handed out.
        self._place = LivePlace(BEFORE_ALL, (0, 0, None))
        self._result: Any = None
        self._batch: LiveBatch[C] | None = None
        self._changes: list[C] = []
        self._next = 0
        self._target: tuple[Any, LivePlace] | None = None  # the newest result, of a handle that was far behind
        self._is_closed = False

    # What each kind of handle does; each may be called again.

    def _shown(self, state: LiveState[C]) -> Any:
        """Return what a state shows, which nothing changes any more; the source's lock is held."""
        raise NotImplementedError

    def _result_of(self, shown: Any) -> Any:
        """Return the handle's result for what a state shows."""
        raise NotImplementedError

    def _changes_to(self, shown: Any) -> list[C]:
        """Return the changes that lead from the handle's result to what a state shows."""
        raise NotImplementedError

    def _handed_out(self, changes: list[C]) -> tuple[list[C], Any]:
        """Return the changes as they are handed out, and the handle's result after them."""
        raise NotImplementedError

    def _open(self) -> Self:
        if self._source is not None or self._is_closed:
            return self
        ((inserted, flushed),) = self._sources.backend.fetch("now")
        source, query = self._sources.attach(self._name, self._wanted, self._inbox)
        self._query, self._source = query, source
        try:
            if flushed < inserted:  # the stream gets no further than what is flushed
                self._sources.backend.fetch("flush")
            self._begin_at(inserted, source, query)
        except BaseException:
            self.close()
            raise
        return self

    def _begin_at(self, lsn: int, source: LiveSource, query: SharedQuery[C]) -> None:
        """Begin once the shared result has everything that committed before `lsn`."""
        began = time.monotonic()
        while not self._begins(lsn, source, query):
            waited_s, pause_s = time.monotonic() - began, _LONGEST_PAUSE_S
            if query.is_current:  # else the source wakes this handle
                source.look(ask=waited_s > _ASK_AFTER_S)
                pause_s = growing_pause_s(waited_s, _LONGEST_LOOK_S)
            self._wakeup.wait(pause_s)

    def _begins(self, lsn: int, source: LiveSource, query: SharedQuery[C]) -> bool:
        with source.lock:
            if self._inbox.is_over:
                raise self._inbox.error or _closed()
            place = source.queries.place
            if not query.is_current or place.position < (lsn,):
                return False
            shown = self._shown(query.state)
            self._inbox.begin()
        self._result = self._result_of(shown)
        self._place = place
        return True

    def __enter__(self) -> Self:
        return self._open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> C:
        try:
            change = self.next()
        except StreamClosed:
            change = None
        if change is None:
            raise StopIteration
        return change

    def next(self, timeout: float | None = None) -> C | None:  # noqa: ASYNC109 (as a stream's)
        """Return the next change, waiting for it where necessary.

        With the first change of a batch, the result and `resume_token` move to the place of the batch.

        Args:
            timeout: seconds to wait; `None` waits as long as the query is open.

        Returns:
            The change, or `None` after `timeout`.

        Raises:
            StreamClosed: the query was closed.
            PgdocError: what ended the query. Every change before it is returned first.
        """
        if not self._has_changes(timeout):
            return None
        change = self._changes[self._next]
        self._next += 1
        return change

    def try_next(self) -> C | None:
        """Return the next change if it is there already, else `None`."""
        return self.next(timeout=0)

    def next_batch(self, timeout: float | None = None) -> list[C]:  # noqa: ASYNC109 (as a stream's)
        """Return all changes from the present place to the next, waiting for them where necessary.

        That is what a transaction has changed, or what several have, if this handle is behind. After `next` has
        returned some of them, it is the others.

        Args:
            timeout: seconds to wait; `None` waits as long as the query is open.

        Returns:
            The changes; an empty list after `timeout`.

        Raises:
            StreamClosed: the query was closed.
            PgdocError: what ended the query. Every change before it is returned first.
        """
        if not self._has_changes(timeout):
            return []
        changes, number = self._changes[self._next :], len(self._changes)
        self._next = number
        return changes

    def _has_changes(self, timeout: float | None) -> bool:  # noqa: ASYNC109
        """Return whether there is a change to hand out, after waiting for one."""
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        source, query = self._opened()
        while self._next == len(self._changes):
            if self._take(source, query):
                continue
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0 and timeout != 0:
                return False
            self._wakeup.wait(left_s)
            if timeout == 0 and not self._take(source, query):
                return False
        return True

    def _opened(self) -> tuple[LiveSource, SharedQuery[C]]:
        self._open()
        if self._source is None or self._query is None or self._is_closed:
            raise _closed()
        return self._source, self._query

    def _take(self, source: LiveSource, query: SharedQuery[C]) -> bool:
        """Take the next batch, if there is one; raise what has ended the query if there is none any more."""
        inbox = self._inbox
        if self._target is None:
            with source.lock:
                if self._batch is not None:
                    inbox.take(self._batch)
                if inbox.batches:
                    batch = inbox.batches[0]
                elif inbox.is_over and not inbox.is_behind:
                    raise inbox.error or _closed()
                elif inbox.is_behind and (query.is_current or inbox.is_over):
                    self._target = (self._shown(query.state), source.queries.place)
                    inbox.is_behind = False
                    batch = None
                else:
                    return False
            if batch is not None:
                self._move(batch.changes, batch.place, batch)
                return True
        if self._target is not None:
            shown, place = self._target
            self._move(self._changes_to(shown), place, None)
            self._target = None
        return True

    def _move(self, changes: list[C], place: LivePlace, batch: LiveBatch[C] | None) -> None:
        changes, result = self._handed_out(changes)
        # Nothing but plain assignments from here on.
        self._result, self._place = result, place
        self._changes, self._next, self._batch = changes, 0, batch

    @property
    def resume_token(self) -> ResumeToken:
        """The place in the WAL that the result belongs to. It also advances without changes.

        Raises:
            StreamError: an async query is not open yet.
        """
        source, query, inbox = self._source, self._query, self._inbox
        if source is None or query is None or self._place.position == BEFORE_ALL:
            raise StreamError("the live query is not open: it, or enter it, first")
        with source.lock:
            is_at_end = not inbox.batches or (len(inbox.batches) == 1 and inbox.batches[0] is self._batch)
            if is_at_end and query.is_current and not (inbox.is_behind or inbox.is_over or self._target):
                self._place = source.queries.place
        return token_at(*self._place)

    @property
    def closed(self) -> bool:
        """Whether the query hands out no more changes that are not there already."""
        return self._is_closed or self._inbox.is_over

    def close(self) -> None:
        """Close this handle; the result and `resume_token` stay. A second call does nothing."""
        self._is_closed = True
        source, query = self._source, self._query
        if source is not None and query is not None:
            source.leave(query, self._inbox)


def _closed() -> StreamClosed:
    return StreamClosed("the live query is closed: open another with live()")
