# Written by .ci/twins.py from pgdoc/_async/waiting.py: change that file, and run it.
"""Waiting until a durable consumer, or a stream, has passed an LSN."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.consumers.claims import unknown_consumer
from pgdoc.errors import HistoryLost, PgdocError, StreamClosed, StreamError, WaitTimeout
from pgdoc.model.names import call_channel
from pgdoc.model.positions import Lsn
from pgdoc.runtime.primitives import sleep
from pgdoc.streams.patience import TIMEOUT_S, Patience, check_lsn, check_wal_has, has_processed

if TYPE_CHECKING:
    from pgdoc._sync.admin import Admin
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.streams.delivery import Delivery

__all__ = ["ConsumerWait", "StreamWaiting", "fetch_now"]


class _Progress(NamedTuple):
    """What the catalog says about a consumer, and how far the WAL is inserted and flushed.

    Attributes:
        place: everything up to it is acknowledged; see `ConsumerRow`.
        snapshot: the progress of a snapshot that is not complete.
    """

    inserted: int
    flushed: int
    place: tuple[int, ...]
    snapshot: str | None

    def has_passed(self, lsn: int) -> bool:
        return self.snapshot is None and self.place >= (lsn,)


def fetch_now(backend: StreamBackend) -> Lsn:
    """See `Store.now`."""
    ((lsn, _),) = backend.fetch("now")
    return Lsn(lsn)


class ConsumerWait:
    """One wait for a durable consumer that any process may have open; see `pgdoc.consumers.calls`."""

    def __init__(self, backend: StreamBackend, admin: Admin, consumer: str, timeout_s: float | None) -> None:
        self._backend, self._admin = backend, admin
        self._name = consumer
        self._patience = Patience(timeout_s)

    def until(self, lsn: Lsn | None) -> None:
        """Return when the consumer has passed `lsn`, by default the present end of the WAL."""
        found = self._look(lsn)
        lsn = Lsn(found.inserted) if lsn is None else lsn
        lost: PgdocError | None = None
        while not found.has_passed(lsn):
            if self._patience.is_over:
                raise self._timed_out(lsn, found) from lost
            try:
                if self._patience.may_call():
                    self._call(lsn, found.flushed)
                sleep(self._patience.pause_s)
                found, lost = self._look(lsn), None
            except PgdocError as exc:
                if not exc.resumable:
                    raise
                lost = exc  # the server restarts, or another one is promoted
                sleep(self._patience.pause_s)

    def _look(self, lsn: Lsn | None) -> _Progress:
        subject = f'consumer "{self._name}"'
        rows = self._backend.fetch("awaited", self._name, subject=subject, rights=self._backend.caller.to_wait())
        ((inserted, flushed, place, snapshot, is_own),) = rows
        if place is None:
            raise unknown_consumer(self._name)
        if lsn is not None:
            check_wal_has(lsn, inserted)
        if not is_own:
            raise HistoryLost(
                f'consumer "{self._name}" has its position in another database, of which this one is a copy or a '
                f"restored dump: run `pgdoc consumers recreate {self._name}`, or drop it"
            )
        return _Progress(inserted, flushed, tuple(place), snapshot)

    def _call(self, lsn: Lsn, flushed: int) -> None:
        if flushed < lsn:  # readers get no further than what is flushed
            self._backend.fetch("flush")
        self._backend.fetch("call", call_channel(self._name))

    def _timed_out(self, lsn: Lsn, found: _Progress) -> WaitTimeout:
        reached = Lsn(found.place[0] if found.place else 0)
        try:
            owner_pid = next((each.owner_pid for each in self._admin.consumers() if each.name == self._name), None)
        except PgdocError:
            owner_pid, reason = None, "who has it open could not be found out"
        else:
            reason = (
                "nobody has it open: start the program that reads it"
                if owner_pid is None
                else f"the session with pid {owner_pid} has it open: look into what its handler does, or wait longer"
            )
        return WaitTimeout(
            f'consumer "{self._name}" has not passed {lsn} within {self._patience.timeout_s:g} s, it is at {reached}; '
            f"{reason}",
            reached=str(reached),
            owner_pid=owner_pid,
        )


class StreamWaiting:
    """The part of a stream that other tasks wait with."""

    _backend: StreamBackend
    _delivery: Delivery

    @property
    def closed(self) -> bool:
        """Whether the stream delivers no more events."""
        return self._delivery.closed

    def wait_for(
        self,
        lsn: Lsn | str | None = None,
        timeout: float | None = TIMEOUT_S,  # noqa: ASYNC109 (the contract's)
    ) -> None:
        """Wait until the program that reads this stream has processed everything before `lsn`.

        That is when the stream has delivered every event of the transactions whose commit LSN is lower, and its reader
        has asked for the next event after them. Call it from another task than the one that reads the stream.

        Args:
            lsn: from `store.now()`; by default everything that was committed before the call.
            timeout: seconds to wait; `None` waits as long as the stream is open.

        Raises:
            WaitTimeout: the reader has not come back in time.
            StreamClosed: the stream ended before.
            InvalidInput: `lsn` is not an LSN.
            InvalidResumeToken: `lsn` lies beyond the end of the server's WAL.
        """
        wanted = None if lsn is None else check_lsn("lsn", lsn)
        patience = Patience(timeout)
        if self._delivery.feed is None and not self.closed:
            raise StreamError("the stream is not open: it, or enter it, first")
        ((inserted, flushed),) = self._backend.fetch("now")
        wanted = Lsn(inserted) if wanted is None else wanted
        check_wal_has(wanted, inserted)
        if has_processed(self._delivery, wanted):
            return
        if flushed < wanted:  # readers get no further than what is flushed
            self._backend.fetch("flush")
        while not has_processed(self._delivery, wanted):
            if self.closed:
                raise StreamClosed(f"the stream ended before it had delivered everything before {wanted}")
            if patience.is_over:
                raise self._not_processed(wanted, patience.timeout_s)
            if self._delivery.feed is not None:
                self._delivery.feed.ask()
            sleep(patience.pause_s)

    def _not_processed(self, lsn: Lsn, timeout_s: float | None) -> WaitTimeout:
        feed = self._delivery.feed
        reached = Lsn(self._delivery.position(feed)[0] if feed is not None else 0)
        mode = self._delivery.stats().mode
        if mode == "standby":
            reason = "it is a standby: wait for its consumer with store.wait_for()"
        elif self._delivery.mailbox.buffered:
            reason = "its reader is behind: look into what it does, or wait longer"
        elif mode == "live":
            reason = "its reader has not asked for the next event: another thread or task must read the stream"
        else:
            reason = f"its mode is {mode}"
        return WaitTimeout(
            f"the stream has not passed {lsn} within {timeout_s:g} s, it is at {reached}; {reason}",
            reached=str(reached),
        )
