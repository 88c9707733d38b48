"""A durable consumer that a stream has open: the thread that owns it and reads its slot into the stream's mailbox.

The thread's phases:

standby     Another process owns the consumer. The thread looks until its claim ends; nothing is read.
takeover    The thread has claimed the consumer, and `takeover` finds where reading starts, or makes a lost slot again.
reading     `OwnedSlot` exists and its reader is open. Changes go into the mailbox.
shared      The hub feeds the mailbox (see `sharing`). The reader is closed; the consumer stays owned, and its slot
            keeps the WAL. When the hub sends the consumer back, the thread goes back to the takeover.
full        The mailbox stayed full for some seconds. The reader is closed, because an open reader that does not read
            delays the server's shutdown; the WAL keeps the changes and the consumer stays owned. When there is room,
            the thread goes back to the takeover.
reconnecting
            A connection was lost. After a delay the thread comes back under its claim, unless that was replaced.
leaving     The stream ended. What was acknowledged is confirmed and stored, and the claim is released.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from pgdoc.consumers.acknowledgements import ConsumerProgress, NotedMailbox
from pgdoc.consumers.asked import AskedCheckpoints
from pgdoc.consumers.claims import busy
from pgdoc.consumers.consumer_feed import ConsumerFeed
from pgdoc.consumers.filling import Filling
from pgdoc.consumers.owned_slot import OwnedSlot
from pgdoc.consumers.ownership import Ownership
from pgdoc.consumers.reported import Reported
from pgdoc.consumers.saving import save_progress
from pgdoc.consumers.sharing import HubShare
from pgdoc.consumers.slots import find_cluster
from pgdoc.consumers.takeover import Takeover, went_back
from pgdoc.errors import ConsumerLost, PgdocError
from pgdoc.model.positions import BEFORE_ALL, Lsn, resume_point
from pgdoc.model.tokens import Mark, SnapshotStage, token_at
from pgdoc.replication.source import Cluster, Source
from pgdoc.replication.traffic import note_reconnect
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.faults import internal_error
from pgdoc.runtime.retry import Backoff
from pgdoc.streams.mailbox import stream_closed
from pgdoc.streams.subscriptions import store_closed

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgdoc.changes.fanout import Subscription
    from pgdoc.changes.life import Existence
    from pgdoc.consumers.claims import Claim
    from pgdoc.consumers.takeover import StartPoint
    from pgdoc.model.positions import RawPosition
    from pgdoc.model.tokens import ResumeToken, SnapshotState
    from pgdoc.streams.hub import Hub
    from pgdoc.streams.mailbox import AsyncMailbox, Mailbox

logger = logging.getLogger("pgdoc.consumer")

_READ_S = 0.5
_STANDBY_S = 0.5
_LEAVE_S = 2.0


class Consumer(ConsumerFeed):
    """A durable consumer that a stream has open.

    Args:
        source: what it reads; the hub may read a standby of it.
        company: the consumers that the store has open; another one is a reason to share a hub.
        begin_at: where a new consumer begins; `None` begins now.
        wait: whether to stand by while another process owns the consumer.
        recreate: whether to begin again from now when the position is lost.
        snapshot: how far a new consumer's snapshot has come.

    Attributes:
        mode: see `StreamStats`.
        recreated: how often it began again because its position was lost.
        claim: of this process, under which checkpoints commit; `None` until it first owns the consumer.
        begun_at: the position after which the stream began.
        snapshot: how far its snapshot had come when it began, or began again.
        existence: which of its collections existed there; `None` for a stream on all of a schema.
        asked: the checkpoints that the stream has asked for.
    """

    def __init__(  # noqa: PLR0913 (the options of `watch`)
        self,
        hub: Hub,
        source: Source,
        name: str,
        subscription: Subscription,
        *,
        company: Collection[Consumer],
        begin_at: ResumeToken | Lsn | None,
        wait: bool,
        recreate: bool,
        snapshot: SnapshotState = SnapshotStage.NONE,
    ) -> None:
        # Fixed from here on.
        self.name, self._source, self._subscription = name, source, subscription
        self._mailbox: Mailbox | AsyncMailbox = subscription.mailbox  # type: ignore[assignment]
        self._wait, self._recreate, self._first_snapshot = wait, recreate, snapshot
        self._process = os.getpid()

        # Written by the consumer's thread and read by the stream's, each in one assignment. A stream that sees a
        # `claim`, or a higher `recreated`, also sees the fields that belong to it: these two are assigned last.
        self.mode = "standby"
        self.snapshot: SnapshotState = SnapshotStage.NONE
        self.begun_at: RawPosition = BEFORE_ALL
        self.existence: Existence | None = None
        self.asked = AskedCheckpoints()
        self.recreated = 0
        self.claim: Claim | None = None
        self._cluster = Cluster(0, 0)
        self._owned: OwnedSlot | None = None  # while the slot is owned

        # Used by the consumer's thread only.
        self._begin_at = begin_at
        self._ownership: Ownership | None = None  # has the claim, or asks for it; None between two connections
        self._won: Claim | None = None  # the last claim of this process; `claim` follows when the takeover succeeds

        # Shared with the stream's thread and the hub's; `ConsumerProgress` says which thread writes what.
        self._progress = ConsumerProgress()
        self._noted = subscription.mailbox = NotedMailbox(subscription.mailbox, self._progress)
        self._filling = Filling(subscription, lambda: self.ids, lambda: self._ends)
        self._share = HubShare(hub, subscription, lambda: len(company) > 1)
        self._reported = Reported(self._share)
        self._closing, self._abandoned = threading.Event(), False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"pgdoc-consumer-{name}", daemon=True)

    def start(self) -> Future[None]:
        """Start the thread; the future is done when changes are being read, or this process stands by."""
        atexit.register(self.close)
        self._thread.start()
        return self._ready

    @property
    def has_ended(self) -> bool:
        """Whether the thread has ended."""
        return self._ready.done() and not self._thread.is_alive()

    def left_at(self, timeline: int) -> int:
        """Return the LSN at which the server left an earlier timeline."""
        return dict(self._cluster.switches).get(timeline, 0)

    def abandon(self) -> None:
        """Let the thread end soon; takes no lock, because the garbage collector may call it while one is held."""
        self._abandoned = True

    def leave(self) -> None:
        """Let the thread end soon, and drop what the mailbox holds."""
        atexit.unregister(self.close)
        self._closing.set()
        if os.getpid() != self._process:  # In a forked child, the mailbox's lock may be held for ever.
            return
        self._mailbox.close()
        self._share.wake()
        owned = self._owned
        if owned is not None:
            owned.wake()

    def close(self, timeout_s: float = 4.0) -> None:
        """Confirm what was acknowledged and release the consumer; returns within about `timeout_s`."""
        self.leave()
        if os.getpid() == self._process and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    @property
    def _ends(self) -> bool:
        return self._abandoned or self._closing.is_set() or self._mailbox.closed

    def _run(self) -> None:
        try:
            with deadline_scope(closing=self._closing):
                self._own_and_read()
        except PgdocError as exc:
            self._fail(exc)
        except Exception as exc:  # noqa: BLE001 (a bug must reach the stream, not vanish with the thread)
            self._fail(internal_error(f'consumer "{self.name}" failed', exc, logger))
        finally:
            self._leave()

    def _fail(self, error: PgdocError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
        elif isinstance(error, ConsumerLost):
            self._leave_hub()  # first: what came after the cut would be delivered, without the events before it
            self._mailbox.cut(error)  # The new owner has begun with the events that this stream still holds.
        elif not self._ends:
            self._mailbox.fail(error)

    def _own_and_read(self) -> None:
        backoff, lost_at = Backoff(), 0
        while not self._ends:
            try:
                ownership = self._own()
                while ownership is not None and not self._ends:
                    with ownership.taking_over():
                        owned = self._open(ownership)
                    self._read(owned)
            except PgdocError as exc:
                if not exc.resumable or not self._ready.done() or self._ends:
                    raise
                if self.mode == "live" or self._progress.watermark > lost_at:  # else it is stuck at the same place
                    backoff.reset()
                lost_at = self._progress.watermark
                if self.mode == "reconnecting":  # one warning for each loss
                    logger.info('consumer "%s": not reconnected yet: %s', self.name, exc)
                else:
                    logger.warning('consumer "%s": reconnecting at %s: %s', self.name, Lsn(lost_at), exc)
                    note_reconnect(self._source, "consumer")
                self.mode = "reconnecting"
                self._disconnect()
                backoff.wait(self._closing)

    def _own(self) -> Ownership | None:
        """Return a session that owns the consumer, standing by if needed; `None` if the stream ends."""
        ownership = self._ownership = Ownership(self._source, self.name, self._won)
        if self._won is not None and ownership.come_back():
            return ownership
        if self.claim is not None:
            raise ownership.lost()
        while not self._ends:
            if ownership.own():
                self._won = ownership.claim
                return ownership
            self._stand_by(ownership)
            self._closing.wait(_STANDBY_S)
        return None

    def _stand_by(self, ownership: Ownership) -> None:
        """Stand by while another process owns the consumer; raise `ConsumerBusy` if this process may not wait."""
        if not self._wait:
            raise busy(self.name, ownership.owner_pid())
        if self._begin_at is None:  # If the owner gives up before the consumer exists, this process creates it here.
            self._begin_at = Lsn(ownership.wal_end()[0])
        self.mode = "standby"
        self._set_ready()

    def _set_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _open(self, ownership: Ownership) -> OwnedSlot:
        cluster = find_cluster(self._source, purpose=ownership.purpose)
        selection = self._subscription.selection
        takeover = Takeover(
            self._source, ownership, cluster, selection, recreate=self._recreate, snapshot=self._first_snapshot
        )
        ownership.check_cluster(cluster)
        self._progress.forget_awaited()
        start = self._enter(ownership, takeover, cluster) if self.claim is None else self._go_on(takeover)
        if start.anew:
            self._progress.begin_anew()
            self.snapshot = start.snapshot
            self.existence = ownership.existence(start.position, selection.vital)
            self.recreated += 1
        owned = self._owned = OwnedSlot(self._source, ownership, cluster, start, self._progress, selection=selection)
        self._cluster = cluster
        self._reported.begin(cluster.ids)
        if self.mode == "reconnecting":
            logger.info('consumer "%s": connected again, and goes on', self.name)
        self.mode = "catching_up"
        self._set_ready()
        return owned

    def _enter(self, ownership: Ownership, takeover: Takeover, cluster: Cluster) -> StartPoint:
        """Own the consumer for the first time in this process."""
        start = takeover.enter(self._begin_at)
        position = start.position
        self._cluster, self.begun_at = cluster, position
        self._progress.begun = Mark(position, start.snapshot)
        self._progress.hold(start.confirmed if ownership.wants_failover else None, ownership.wal_end()[0])
        self.snapshot = start.snapshot
        self.existence = ownership.existence(position, self._subscription.selection.vital)
        self.claim = self._won
        self._mailbox.begin_at(position)
        self._subscription.after = resume_point(position)
        return start

    def _go_on(self, takeover: Takeover) -> StartPoint:
        """Go on after a lost connection, or after the mailbox was full."""
        after = token_at(self._subscription.after, self.ids)
        lost = takeover.find_lost(after, self.asked, self._progress.saved.mark)
        if lost is not None:
            self.claim = None  # Store nothing: it would be about events that this server does not have.
            raise lost
        start = takeover.go_on(after, self._progress.needed_from(after.position))
        if start.position < self._subscription.after:
            self.claim = None  # Store nothing: what the stream was given lies beyond everything that is to come.
            raise went_back(self.name, after)
        self._subscription.after = start.position
        return start

    def _read(self, owned: OwnedSlot) -> None:
        """Feed the stream until it ends, the hub sends it back, or a mailbox that was full for long has room again."""
        while not self._ends:
            burst = self._filling.read(owned, owned.patience_s(_READ_S))
            if not self._filling.put(burst, owned):
                break
            self._progress.watermark = burst.watermark
            if owned.has_caught_up:
                self.mode = "live"
            owned.heartbeat()
            if owned.may_rest and self._mailbox.has_room and self._join_hub(owned):
                self._stay_with_hub(owned)
                break
        self._leave_hub()
        if not self._ends:
            self.mode = "catching_up"
            owned.stop_reading()
            self._filling.wait_for_room(owned)

    def _join_hub(self, owned: OwnedSlot) -> bool:
        """Hand over to the hub if it is near; return whether it feeds the stream now."""
        self._noted.closes_at = owned.is_owned_until
        if self._share.join(self._progress.watermark, self.ids, owned.plugin):
            return True
        self._noted.closes_at = float("inf")
        if self._share.is_joining:
            owned.ask()
        return False

    def _stay_with_hub(self, owned: OwnedSlot) -> None:
        """Keep the slot while the hub feeds the stream, until the hub sends the consumer back or the stream ends."""
        owned.stop_reading()
        while not self._ends and self._share.is_feeding and owned.may_rest:
            self._share.wait(owned.session, owned.patience_s(_READ_S))
            # A watermark of the hub counts what it has put: `NotedMailbox` has noted that before.
            self._progress.watermark = max(self._progress.watermark, self._share.watermark)
            owned.heartbeat()
            if owned.lacks_called:
                self._share.ask()
            self._noted.closes_at = owned.is_owned_until

    def _leave_hub(self) -> None:
        self._reported.note(self._owned)
        self._share.leave()
        self._noted.closes_at = float("inf")

    def _disconnect(self) -> None:
        """Close the sessions, which are lost or must not be used any more."""
        sessions = [each for each in (self._owned, self._ownership) if each is not None]
        self._leave_hub()
        self._owned = self._ownership = None
        for session in sessions:
            session.close()

    def _leave(self) -> None:
        atexit.unregister(self.close)
        try:
            with deadline_scope(until=time.monotonic() + _LEAVE_S, closing=threading.Event()):
                self._flush_progress()
        except PgdocError as exc:
            logger.info('consumer "%s": the last acknowledgements could not be stored: %s', self.name, exc)
        finally:
            self._disconnect()
            self._share.close()
            self.mode = "closed"
            if not self._ready.done():
                self._ready.set_exception(store_closed() if self._closing.is_set() else stream_closed())

    def _flush_progress(self) -> None:
        """Confirm and store what was acknowledged, and release the claim.

        Without a `claim` nothing is stored: the consumer was never owned, or the WAL went back.
        """
        owned, ownership = self._owned, self._ownership
        if owned is not None and self.claim is not None:
            owned.flush_progress()
            return
        if self.claim is not None:
            if ownership is None or ownership.closed:  # The claim alone is enough to store progress.
                ownership = self._ownership = Ownership(self._source, self.name, self.claim)
            save_progress(ownership, self._cluster, self._progress, idle_bytes=0, advance=True)
        if ownership is not None:
            ownership.give_up()
