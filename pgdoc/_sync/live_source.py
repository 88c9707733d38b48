# Written by .ci/twins.py from pgdoc/_async/live_source.py: change that file, and run it.
"""What the live queries of one collection or table share: a stream, and the reads."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pgdoc._sync.live_reader import LiveReader
from pgdoc._sync.live_stream import LiveStream, open_live_stream
from pgdoc.changes.events import change_of
from pgdoc.changes.snapshot import PgSnapshot
from pgdoc.decoding.records import ROW_KINDS, CollectionChange
from pgdoc.errors import HistoryLost, InvalidResumeToken, PgdocError, StreamClosed, UnreadableChange
from pgdoc.live.queries import LiveQueries, no_longer_there
from pgdoc.live.shared import EARLY_S
from pgdoc.runtime.activities import Activity
from pgdoc.runtime.ahead import Ahead
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.faults import internal_error
from pgdoc.runtime.primitives import Lock, sleep
from pgdoc.runtime.retry import growing_pause_s
from pgdoc.runtime.wakeup import wake_together

if TYPE_CHECKING:
    from pgdoc._sync.session import Session
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.inbox import LiveInbox
    from pgdoc.live.shared import LiveRows, LiveWanted, PendingRead, SharedQuery

__all__ = ["LiveSource"]

logger = logging.getLogger("pgdoc.live")

C = TypeVar("C")

READS: Final = 3
"""How many statements read for one source at once, so that they leave connections to others."""

_IDLE_S: Final = 1.0
_LONGEST_POLL_S: Final = 0.02
_ASK_AFTER_S: Final = 0.1
_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 5.0
_STOP_S: Final = 2.0


class LiveSource:
    """Feeds the live queries of one collection or table. A thread or task of its own reads the stream.

    Attributes:
        lock: guards `queries`, `is_over` and the inboxes. Held for a few steps, and never while waiting.
        opening: held while the source is being opened.
        is_open: whether the stream was opened.
        is_over: whether it takes no more queries.
    """

    def __init__(self, backend: StreamBackend, session: Session, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.opening = Lock()
        self.queries = LiveQueries()
        self.is_open = self.is_over = False
        self._backend = backend
        self._reader = LiveReader(backend, session, name)
        self._stream: LiveStream
        self._activity: Activity | None = None
        self._stopping = threading.Event()
        # Without the lock: any thread appends, the source's own takes out.
        self._abandoned: deque[tuple[SharedQuery[Any], LiveInbox[Any]]] = deque()
        self._outcomes: deque[tuple[SharedQuery[Any] | None, PendingRead | None, Any]] = deque()
        # Used by the source's own thread or task.
        self._reads: list[Ahead[None]] = []
        self._has_taken = False  # whether the last step took events, so that others may be there
        self._waits_since: float | None = None  # when it began to poll
        self._looks_back = False  # whether a statement asks which transactions are visible

    def open(self) -> None:
        """Open the stream, and begin to read it."""
        self._stream = open_live_stream(self._backend, self.name)
        try:
            self.queries.place = self._stream.place
            self._activity = Activity("pgdoc-live", self._run)
        except BaseException:
            self._stream.close()
            raise
        self.is_open = True

    def join(self, wanted: LiveWanted[C], inbox: LiveInbox[C]) -> SharedQuery[C] | None:
        """Let a handle follow a query; `None` if the source is over."""
        with self.lock:
            if self.is_over:
                return None
            query = self.queries.join(wanted, inbox)
            inbox.when_abandoned = partial(self._abandoned.append, (query, inbox))
        self._stream.nudge()
        return query

    def leave(self, query: SharedQuery[Any], inbox: LiveInbox[Any]) -> None:
        """Undo `join`; the source ends with its last handle."""
        inbox.when_abandoned = None
        with self.lock:
            inbox.clear()
            inbox.end(None)
            self.queries.leave(query, inbox)
            is_last = not len(self.queries)
            self.is_over = self.is_over or is_last  # at once, so that no other handle joins what is being closed
        if is_last:
            self.close()

    def look(self, *, ask: bool = False) -> None:
        """Have it look how far the stream has come, and perhaps ask the server how far its WAL goes."""
        if ask:
            self._stream.ask()
        self._stream.nudge()

    def close(self) -> None:
        """End all queries, and return when the source has stopped, or after two seconds."""
        with self.lock:
            self.is_over = True
            self.queries.end_all(None)
        self._stopping.set()
        if self._activity is not None:
            self._stream.close()
            self._activity.wait(_STOP_S)

    def after_fork(self, error: PgdocError) -> None:
        """End all queries in a child process, where the source's thread does not exist."""
        self.lock = threading.Lock()
        self.is_over, self._activity = True, None
        self.queries.end_all(error)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with deadline_scope(closing=self._stopping):
                error = self._follow()
        except Exception as exc:  # noqa: BLE001 (a bug must reach the handles, not vanish with the thread)
            error = _as_known(exc)
        finally:
            with self.lock:
                self.is_over = True
                self.queries.end_all(error)
            for ahead in self._reads:
                ahead.stop()
            self._stream.close()

    def _follow(self) -> PgdocError | None:
        """Read the stream until the source is over; return the error that ends its queries, if any."""
        while not self._stopping.is_set():
            try:
                self._step()
            except StreamClosed:
                return None
            except PgdocError as exc:
                if not _is_worth_a_reload(exc):
                    return exc
                logger.warning("the live queries on %s read everything again: %s", self._reader.subject, exc)
                error = self._reopen()
                if error is not None:
                    return error
            if self.is_over:
                return None
        return None

    def _step(self) -> None:
        self._begin_reads()
        with self.lock:
            has_room = self.queries.has_room
        if has_room:
            events = self._stream.take(0 if self._has_taken else self._wait_s())
        else:
            sleep(EARLY_S)  # the WAL has the changes meanwhile
            events = []
        self._end_reads()
        self._forget_abandoned()
        self._has_taken = bool(events)
        if events:
            self._waits_since = None
            self._take(events)
        elif has_room:
            place = self._stream.place
            with wake_together(), self.lock:
                self.queries.come_to(place)
        if self.queries.failed:
            self._end_failed()

    def _end_failed(self) -> None:
        """End the queries that an error keeps from going on; the others do."""
        with wake_together(), self.lock:
            for query, exc in self.queries.failed:
                self.queries.end(query, _as_known(exc))
            self.queries.failed.clear()

    def _take(self, events: list[ChangeEvent[Any]]) -> None:
        """Take events: those of the collection itself come alone."""
        change = change_of(events[0])
        row = change.row
        with wake_together(), self.lock:
            if row.kind in ROW_KINDS:
                self.queries.take(events, self._stream.place.ids)
            elif isinstance(row, CollectionChange) and row.kind == "schema":
                self.queries.want_all()
            elif row.kind in {"drop", "rename"} and row.table == self.name:
                self.is_over = True
                self.queries.begin_transaction(change.position, self._stream.place.ids)
                self.queries.end_all(no_longer_there(self._reader.subject, row.kind, row.renamed_to))

    def _wait_s(self) -> float:
        """Return how long to wait for changes.

        Neither the end of a transaction nor the place where a read is due wakes the stream, so they are polled for.
        """
        now = time.monotonic()
        with self.lock:
            read_at = self.queries.next_read_at if len(self._reads) < READS else None
            is_due = self.queries.has_open_transaction or self.queries.due_at is not None
        idle_s = _IDLE_S if read_at is None else min(_IDLE_S, max(0.0, read_at - now))
        if not is_due:
            self._waits_since = None
            return idle_s
        if self._waits_since is None:
            self._waits_since = now
        waited_s = now - self._waits_since
        if waited_s > _ASK_AFTER_S:
            self._stream.ask()
        return min(growing_pause_s(waited_s, _LONGEST_POLL_S), idle_s)

    def _begin_reads(self) -> None:
        if self.queries.has_many_taken and not self._looks_back:
            self._looks_back = True
            self._begin(None, None)
        while len(self._reads) < READS:
            with self.lock:
                query = self.queries.begin_read(time.monotonic())
            if query is None:
                return
            self._begin(query, query.read)

    def _begin(self, query: SharedQuery[Any] | None, read: PendingRead | None) -> None:
        ahead: Ahead[None] = Ahead(partial(self._read, query, read))
        self._reads.append(ahead)
        ahead.begin()

    def _read(self, query: SharedQuery[Any] | None, read: PendingRead | None) -> None:
        """Read for a query, or which transactions are visible; a thread or task of its own does."""
        outcome: Any
        try:
            if query is None:
                ((text, _, _),) = self._backend.fetch("running")
                outcome = PgSnapshot.parse(text).sees
            else:
                outcome = query.wanted.read(self._reader, query.state)
        except Exception as exc:  # noqa: BLE001 (for the source)
            outcome = exc
        self._outcomes.append((query, read, outcome))
        self._stream.nudge()

    def _end_reads(self) -> None:
        while self._outcomes:
            query, read, outcome = self._outcomes.popleft()
            self._reads = [each for each in self._reads if not each.is_over]
            with wake_together(), self.lock:
                if query is not None:
                    self._end_read(query, read, outcome)
                else:
                    self._looks_back = False
                    if not isinstance(outcome, Exception):
                        self.queries.note_visible(outcome)

    def _end_read(
        self, query: SharedQuery[Any], read: PendingRead | None, outcome: LiveRows | Exception | None
    ) -> None:
        if not isinstance(outcome, Exception):
            if self.queries.end_read(query, read, outcome):
                query.pause_s = EARLY_S
            else:  # a transaction that waits for a synchronous standby can be invisible for long
                query.not_before = time.monotonic() + query.pause_s
                query.pause_s = min(2 * query.pause_s, _RETRY_S)
        elif isinstance(outcome, PgdocError) and (outcome.resumable or outcome.retryable):
            logger.info("reading for a live query again in %s s: %s", _RETRY_S, outcome)
            query.not_before = time.monotonic() + _RETRY_S
            self.queries.want_again(query)
        else:
            self.queries.end(query, _as_known(outcome))

    def _forget_abandoned(self) -> None:
        while self._abandoned:
            query, inbox = self._abandoned.popleft()
            with self.lock:
                self.queries.leave(query, inbox)
                self.is_over = self.is_over or not len(self.queries)

    def _reopen(self) -> PgdocError | None:
        """Open another stream, and read for all queries again; return what makes that impossible."""
        self._stream.close()
        pause_s = 0.1
        while not self._stopping.is_set():
            try:
                stream = open_live_stream(self._backend, self.name)
            except PgdocError as exc:
                if not (exc.resumable or exc.retryable):
                    return exc
                logger.info("the live queries on %s are not open again yet: %s", self._reader.subject, exc)
            else:
                self._stream = stream
                with self.lock:
                    self.queries.restart(stream.place)
                return None
            self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
        return None

    def _pause(self, pause_s: float) -> None:
        deadline = time.monotonic() + pause_s
        while not self._stopping.is_set() and (left_s := deadline - time.monotonic()) > 0:
            sleep(min(left_s, 0.1))


def _as_known(exc: Exception) -> PgdocError:
    return exc if isinstance(exc, PgdocError) else internal_error("a live query failed", exc, logger)


def _is_worth_a_reload(exc: PgdocError) -> bool:
    """Return whether a new stream may go on where one has ended with this error."""
    return exc.resumable or isinstance(exc, HistoryLost | InvalidResumeToken | UnreadableChange)
