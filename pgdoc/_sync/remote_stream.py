# Written by .ci/twins.py from pgdoc/_async/remote_stream.py: change that file, and run it.
"""Streams of a log that a relay writes."""

from __future__ import annotations

import builtins
import time
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pgdoc.errors import NotAConsumer, PgdocError, StreamClosed, StreamError, WaitTimeout
from pgdoc.relay.delivery import RemoteDelivery
from pgdoc.relay.inbox import Inbox
from pgdoc.relay.remote_options import RemoteOptions
from pgdoc.relay.single_reading import SingleReading
from pgdoc.relay.targets import Target
from pgdoc.runtime.primitives import Opening, call, open_made, sleep, wait
from pgdoc.streams.batch import BATCH
from pgdoc.streams.options import BUFFER_BYTES, BUFFER_SIZE, check_most, check_timeout
from pgdoc.streams.patience import TIMEOUT_S, Patience, check_lsn
from pgdoc.streams.status import StreamStats

if TYPE_CHECKING:
    from collections.abc import Generator, Callable, Mapping

    from pgdoc._sync.checkpoint import OpenTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken

    T = TypeVar("T")

__all__ = ["RemoteStream"]


class RemoteStream(Opening):
    """The events of a log that `pgdoc relay` writes, in the order in which their transactions committed.

    It has the methods of the stream that `watch()` returns, and its tokens are of the same kind: a program moves from
    PostgreSQL to a log, and back, with the token that it has. Only one task may read a stream. Await it or enter it to
    open it.

    The stream reconnects automatically and drops no event. Nothing of it reaches PostgreSQL.

    Args:
        url: of the log, such as `nats://host/ORDERS`.
        *names: of collections and tables; none for all that the log has.
        where: a filter on events, as for `store.watch`.
        resume_after: a token of any stream of the same database, or an LSN.
        start: without `resume_after`: `now`, after the last event that the log has when the stream opens, or
            `beginning`, with the oldest one that it has. What the relay has not sent yet comes after *now*.
        buffer_size: the limit of the buffer, in events.
        buffer_bytes: its limit in bytes.
        decimals: whether numbers with a fraction are read as `Decimal`.

    Raises:
        InvalidInput: the URL or an option is not valid.
        InvalidFilter: `where` is not a filter.
        InvalidResumeToken: `resume_after` is not a token; when the stream opens: one of another cluster or
            database.
        MissingExtra: the client of the engine is not installed.
        HistoryLost: when the stream opens: the log does not have all events after `resume_after`.
        LogUnreachable: when the stream opens: the engine does not answer.
        LogRefused: when the stream opens: there is no such log, or it can't be read; `reason` says why.
    """

    def __init__(  # noqa: PLR0913 (the contract)
        self,
        url: str,
        *names: str,
        where: Mapping[str, Any] | None = None,
        resume_after: ResumeToken | Lsn | str | None = None,
        start: str = "now",
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
        decimals: bool = False,
    ) -> None:
        options = RemoteOptions.checked(
            names,
            where=where,
            resume_after=resume_after,
            start=start,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            decimals=decimals,
        )
        self._target = Target.parse(url)
        self._inbox = Inbox(buffer_size, buffer_bytes)
        self._delivery = RemoteDelivery(self._inbox, options.where, options.decode)
        self._reading = SingleReading(self._target, options, self._inbox)
        self._acknowledges = False  # whether asking for the next event acknowledges the last
        weakref.finalize(self, self._reading.abandon)  # for streams that are dropped without close()
        open_made(self)

    @property
    def closed(self) -> bool:
        """Whether the stream delivers no more events."""
        return self._inbox.closed

    def _open(self) -> Self:
        """Start, once; what the constructor promises holds when this returns."""
        if self._reading.begun_at is not None or self.closed:
            return self
        try:
            wait(self._reading.start())
        except BaseException:
            self.close()
            raise
        self._reading.run()
        return self

    def __enter__(self) -> Self:
        return self._open()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChangeEvent:
        try:
            event = self._delivery.next_event()
            if event is None:
                event = self._next(None, self._delivery.next_event)
        except StreamClosed:
            event = None
        except PgdocError:
            self.close()
            raise
        if event is None:
            raise StopIteration
        return event

    def next(self, timeout: float | None = None) -> ChangeEvent | None:  # noqa: ASYNC109 (the contract's)
        """Return the next event, waiting for it where necessary.

        A call that is interrupted or cancelled consumes no event.

        Args:
            timeout: seconds to wait; `None` waits as long as the stream is open.

        Returns:
            The event, or `None` after `timeout`.

        Raises:
            StreamClosed: the stream was closed.
            PgdocError: the error that ended the stream. Every event before it is returned first.
        """
        return self._next(timeout, self._delivery.next_event)

    def next_batch(
        self,
        max: int = BATCH,  # noqa: A002 (the name in the contract)
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[ChangeEvent]:
        """Return the next events: the first as soon as it is there, and with it those that are buffered already.

        Args:
            max: the most events to return.
            timeout: seconds to wait for the first event; `None` waits as long as the stream is open.

        Returns:
            The events in their order; an empty list after `timeout`.

        Raises:
            InvalidInput: `max` is not a positive integer.
            StreamClosed: the stream was closed.
            PgdocError: the error that ended the stream. Every event before it is returned first.
        """
        check_most(max)
        # Not a partial: after a call in C, a KeyboardInterrupt would lose what it returned.
        return self._next(timeout, lambda: self._delivery.next_events(max)) or []

    def batches(self, max: int = BATCH) -> Generator[list[ChangeEvent]]:  # noqa: A002
        """Iterate over the events in batches, as `next_batch` returns them, until the stream ends.

        Args:
            max: the most events in one batch.

        Raises:
            InvalidInput: raised by the first step, if `max` is not a positive integer.
            PgdocError: the error that ended the stream. Every event before it is returned first.
        """
        while True:
            try:
                batch = self.next_batch(max)
            except StreamClosed:
                return
            yield batch

    def _next(self, timeout: float | None, deliver: Callable[[], T | None]) -> T | None:  # noqa: ASYNC109
        """Return what `deliver` has, waiting for entries until it has something."""
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            if self._reading.begun_at is None:
                self._open()
            while True:
                found = deliver()
                if found:
                    return found
                left_s = None if deadline is None else builtins.max(0.0, deadline - time.monotonic())
                if not self._inbox.take(left_s):
                    return None
        except StreamClosed:
            raise
        except PgdocError:
            self.close()
            raise

    def try_next(self) -> ChangeEvent | None:
        """Return the next event if it is buffered already, else `None`."""
        return self.next(timeout=0)

    def ack(self, event: ChangeEvent | None = None) -> None:
        """Raise `NotAConsumer`: only a stream with a group has a position to move.

        Raises:
            NotAConsumer: always.
        """
        raise NotAConsumer("ack needs a group: open the stream with group=..., or store the resume token yourself")

    def checkpoint(self, event: ChangeEvent, tx: OpenTransaction) -> None:
        """Raise `NotAConsumer`, as `ack`.

        Raises:
            NotAConsumer: always.
        """
        raise NotAConsumer("checkpoint needs a group: open the stream with group=..., or store the token in `tx`")

    @property
    def resume_token(self) -> ResumeToken:
        """The position up to which everything has been delivered. It also advances over events that are not wanted.

        Raises:
            StreamError: an async stream is not open yet.
        """
        begun_at = self._reading.begun_at
        if begun_at is None:
            raise StreamError("the stream is not open: it, or enter it, first")
        return self._delivery.token(begun_at.token)

    def stats(self) -> StreamStats:
        """Return the stream's mode, its counts of events, and how long ago the next one committed.

        `lag_bytes` is always 0: a log does not say where the WAL ends. `mode` is `live`, `catching_up`, `reconnecting`
        or `closed`.
        """
        count, size_bytes = self._inbox.buffered
        return StreamStats(
            mode="closed" if self.closed or self._reading.begun_at is None else self._reading.mode,
            buffered=count,
            delivered=self._delivery.delivered,
            lag_bytes=0,
            lag=self._delivery.lag,
            buffered_bytes=size_bytes,
        )

    def wait_for(
        self,
        lsn: Lsn | str,
        timeout: float | None = TIMEOUT_S,  # noqa: ASYNC109 (the contract's)
    ) -> None:
        """Wait until the stream has passed `lsn`: an event that committed there or later was delivered or left out.

        A log says nothing about a time without events: after the last event before `lsn`, another one must come. Call
        it from another task than the one that reads the stream.

        Args:
            lsn: from `store.now()`.
            timeout: seconds to wait; `None` waits as long as the stream is open.

        Raises:
            WaitTimeout: no such event has come in time.
            StreamClosed: the stream ended before.
            InvalidInput: `lsn` is not an LSN.
        """
        wanted = check_lsn("lsn", lsn)
        patience = Patience(timeout)
        while self.resume_token.lsn < wanted:
            if self.closed:
                raise StreamClosed(f"the stream ended before it had passed {wanted}")
            if patience.is_over:
                reached = self.resume_token.lsn
                raise WaitTimeout(
                    f"the stream has not passed {wanted} within {patience.timeout_s:g} s, it is at {reached}: its "
                    "reader is behind, or the log has no later event",
                    reached=str(reached),
                )
            sleep(patience.pause_s)

    def close(self) -> None:
        """Close the stream and drop what is buffered; `resume_token` stays. A second call does nothing."""
        self._inbox.close()
        call(self._reading.close)
