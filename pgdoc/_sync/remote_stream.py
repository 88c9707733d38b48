# Written by .ci/twins.py from pgdoc/_async/remote_stream.py: change that file, and run it.
"""Streams of a log that a relay writes."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pgdoc._sync.group_positions import GroupPositions
from pgdoc._sync.store import Store
from pgdoc.errors import NotAConsumer, PgdocError, ServerError, StreamClosed, StreamError, WaitTimeout
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.delivery import RemoteDelivery
from pgdoc.relay.groups.delivery import GroupDelivery
from pgdoc.relay.groups.joining import join_group
from pgdoc.relay.inbox import Inbox
from pgdoc.relay.remote_options import LEASE_S, RemoteOptions, check_group
from pgdoc.relay.single_reading import SingleReading
from pgdoc.relay.targets import LogTarget
from pgdoc.runtime.primitives import Opening, call, open_made, sleep, wait
from pgdoc.streams.batch import BATCH
from pgdoc.streams.options import BUFFER_BYTES, BUFFER_SIZE, check_event, check_most, check_timeout
from pgdoc.streams.patience import TIMEOUT_S, Patience, check_lsn
from pgdoc.streams.status import StreamStats

if TYPE_CHECKING:
    from collections.abc import Generator, Callable, Iterable, Mapping

    from pgdoc._sync.checkpoint import OpenTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.relay.groups.reading import GroupReading

    T = TypeVar("T")

__all__ = ["RemoteStream"]

_SUSPENDED_POLL_S = 0.05


class RemoteStream(Opening):
    """The events of a log that `pgdoc relay` writes, in the order in which their transactions committed.

    It has the methods of the stream that `watch()` returns, and its tokens are of the same kind: a program moves from
    PostgreSQL to a log, and back, with the token that it has. Only one task may read a stream. Await it or enter it to
    open it.

    The stream reconnects automatically and drops no event. Nothing of it reaches PostgreSQL.

    Args:
        url: of the log, such as `nats://host/ORDERS`.
        *names: of collections and tables; none for all that the log has, unless there are topics.
        topics: also the events that applications have published under these topics, as for `store.watch`.
        where: a filter on events, as for `store.watch`.
        resume_after: a token of any stream of the same database, or an LSN.
        start: without `resume_after`: `now`, after the last event that the log has when the stream opens, or
            `beginning`, with the oldest one that it has. What the relay has not sent yet comes after *now*.
        buffer_size: the limit of the buffer, in events.
        buffer_bytes: its limit in bytes.
        decimals: whether numbers with a fraction are read as `Decimal`.
        group: read the log together with all other streams of this group, on any machine: each partition is read by one
            of them at a time. `start` and `resume_after` count for the first stream of a new group.
        store: for `checkpoint`: its database has the effects of the events.
        auto_ack: in a group: whether asking for the next event acknowledges the one before.
        lease: in a group: seconds after which a member that does not answer loses its partitions.

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
        topics: Iterable[str] | None = None,
        where: Mapping[str, Any] | None = None,
        resume_after: ResumeToken | Lsn | str | None = None,
        start: str = "now",
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
        decimals: bool = False,
        group: str | None = None,
        store: Store | None = None,
        auto_ack: bool = True,
        lease: float = LEASE_S,
    ) -> None:
        check_group(group, lease)
        if store is not None and not isinstance(store, Store):
            raise TypeError(f"store must be of type Store, got {short_repr(store)}")
        options = RemoteOptions.checked(
            names,
            topics=topics,
            where=where,
            resume_after=resume_after,
            start=start,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            decimals=decimals,
        )
        self._target = LogTarget.parse(url)
        self._inbox = Inbox(buffer_size, buffer_bytes)
        self._delivery: RemoteDelivery
        self._reading: SingleReading | GroupReading
        self._positions: GroupPositions | None = None
        if group is None:
            self._delivery = RemoteDelivery(self._inbox, options.where, options.decode, options.covers)
            self._reading = SingleReading(self._target, options, self._inbox)
        else:
            self._delivery, self._reading = join_group(
                self._target, options, self._inbox, group=group, lease_s=lease, needs_claim=store is not None
            )
            if store is not None:
                self._positions = GroupPositions(store, self._target.key, group)
        self._acknowledges = group is not None and auto_ack  # whether asking for the next event acknowledges the last
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
            self._settle()
            event = None if self._delivery.is_confirmation_due else self._delivery.next_event()
            if event is None:
                event = self._wait(None, self._delivery.next_event)
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
        """Return what `deliver` has, after what was delivered before is settled."""
        check_timeout(timeout)
        self._settle()
        return self._wait(timeout, deliver)

    def _settle(self) -> None:
        """Let what was delivered be acknowledged or checkpointed, since the next event is asked for."""
        delivery = self._delivery
        if isinstance(delivery, GroupDelivery):
            delivery.settle()
            if self._acknowledges:
                delivery.acknowledge(None)

    def _wait(self, timeout: float | None, deliver: Callable[[], T | None]) -> T | None:  # noqa: ASYNC109
        """Return what `deliver` has, waiting for entries until it has something."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            if self._reading.begun_at is None:
                self._open()
            while True:
                if self._delivery.is_confirmation_due:
                    self._confirm()
                found = deliver()
                if found:
                    return found
                self._claim()
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                if self._delivery.is_suspended:
                    if left_s == 0.0:
                        return None
                    self._inbox.refill()  # raises what has ended the stream
                    sleep(_SUSPENDED_POLL_S if left_s is None else min(left_s, _SUSPENDED_POLL_S))
                elif not self._inbox.take(left_s):
                    return None
        except (StreamClosed, ServerError):  # the latter of a claim, which the next call repeats
            raise
        except PgdocError:
            self.close()
            raise

    def _confirm(self) -> None:
        if isinstance(self._delivery, GroupDelivery) and self._positions is not None:
            self._positions.confirm(self._delivery.unconfirmed())

    def _claim(self) -> None:
        """Claim the partition of the next event in PostgreSQL, if that is due."""
        delivery = self._delivery
        if isinstance(delivery, GroupDelivery) and self._positions is not None and delivery.unclaimed is not None:
            self._positions.claim(delivery.unclaimed)

    def try_next(self) -> ChangeEvent | None:
        """Return the next event if it is buffered already, else `None`."""
        return self.next(timeout=0)

    def ack(self, event: ChangeEvent | None = None) -> None:
        """Acknowledge an event and all that this stream delivered before it: the group gets them no more.

        The positions are written every half second, and at `close`. If this process ends before that, another member
        gets the events again: use `checkpoint` for effects in PostgreSQL.

        Args:
            event: an event of this stream; `None` for the last one.

        Raises:
            ConsumerLost: another member has taken the event's partition over, and gets the event again. The stream goes
                on with its other partitions.
            NotAConsumer: the stream has no group.
            ValueError: this stream has not delivered the event.
        """
        check_event(event)
        self._grouped("ack").acknowledge(event)

    def checkpoint(self, event: ChangeEvent, tx: OpenTransaction) -> None:
        """Record inside a transaction that the event was processed, so that its effect and the record commit together.

        It stands for all events that this stream delivered before, too. From then on the stream no longer acknowledges
        by itself: what checkpoints have committed counts. All members of the group must use it.

        Args:
            event: an event of this stream.
            tx: an open transaction of the database of `store`.

        Raises:
            ConsumerLost: another member has taken the event's partition over, or the effect is stored already. The
                transaction must not commit; it rolls back when this error leaves its block. The stream goes on with the
                next event.
            NotAConsumer: the stream has no group, or no store.
            ValueError: this stream has not delivered the event.
        """
        check_event(event)
        delivery = self._grouped("checkpoint")
        if self._positions is None:
            raise NotAConsumer("checkpoint needs the store whose database has the effects: open the stream with store=")
        self._acknowledges = False
        self._positions.checkpoint(tx, delivery.begin_checkpoint(event))

    def _grouped(self, call: str) -> GroupDelivery:
        if not isinstance(self._delivery, GroupDelivery):
            raise NotAConsumer(
                f"{call} needs a group: open the stream with group=..., or store the resume token yourself"
            )
        return self._delivery

    @property
    def resume_token(self) -> ResumeToken:
        """The position up to which everything has been delivered. It also advances over events that are not wanted.

        Raises:
            StreamError: an async stream is not open yet, or it is one of a group.
        """
        begun_at = self._reading.begun_at
        if isinstance(self._delivery, GroupDelivery):
            raise StreamError("a stream of a group has a position in each partition, which the group keeps: use ack()")
        if begun_at is None:
            raise StreamError("the stream is not open: it, or enter it, first")
        return self._delivery.token(begun_at.token)

    def stats(self) -> StreamStats:
        """Return the stream's mode, its counts of events, and how long ago the next one committed.

        `lag_bytes` is always 0: a log does not say where the WAL ends. `mode` is `live`, `catching_up`, `reconnecting`,
        `standby`, for a member of a group that has no partition, or `closed`.
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
