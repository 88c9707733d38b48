"""The open subscriptions of a store, and the fan-out that feeds the live ones."""

from __future__ import annotations

import copy
import threading
from collections import deque
from typing import TYPE_CHECKING

from pgdoc.changes import events
from pgdoc.changes.fanout import Fanout, State, Subscription
from pgdoc.errors import InvalidResumeToken, StoreClosed, StreamError
from pgdoc.model.json_codec import decode_comparable
from pgdoc.model.positions import BEFORE_ALL, before_commits_at, commit_lsn_of
from pgdoc.replication.source import Cluster
from pgdoc.runtime.wakeup import wake_together

if TYPE_CHECKING:
    from pgdoc.changes.change import Burst, Change
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.router import Selection
    from pgdoc.model.positions import Ids, RawPosition
    from pgdoc.streams.mailbox import AsyncMailbox, Mailbox

_NEAR_BYTES = 1 << 20
"""How far behind the live reader a catch-up reader may be when it begins to hand a subscription over."""


class Subscriptions:
    """The registry of subscriptions; used by the hub thread, catch-up readers and the threads of users.

    A subscription's fields have one writer at a time. While it is LIVE, that is the hub thread, under the lock. While
    it is DETACHED or REJOINING, its catch-up reader writes `after`, and the hub thread buffers changes for it under the
    lock.

    Attributes:
        ids: those of `cluster`, which are part of every token.
    """

    def __init__(self) -> None:
        # Held for one burst at most, and never while waiting. Code that holds it may take the lock of a mailbox.
        self._lock = threading.Lock()

        # Written under the lock. The first three are replaced as a whole, so any thread may read them.
        self.cluster = Cluster(0, 0)
        self.ids: Ids = self.cluster.ids
        self._fanout = Fanout(0, self.view)
        self._open: set[Subscription] = set()
        self._is_accepting = False
        self._is_closed = False

        # Without the lock: any thread appends, the hub thread takes out.
        self._abandoned: deque[Subscription] = deque()

    @property
    def watermark(self) -> int:
        """Every transaction that commits below this LSN has been dispatched."""
        return self._fanout.watermark

    @property
    def dispatched(self) -> RawPosition:
        """The position up to which every LIVE subscription has been given all that it wants."""
        return self._fanout.dispatched

    def view(self, change: Change) -> ChangeEvent:
        """Return the event that filters look at; no user gets it."""
        return events.from_change(change, self.ids, decode_text=decode_comparable)

    def begin(self, cluster: Cluster, watermark: int) -> None:
        """Accept subscriptions: the live reader's session starts at `watermark`."""
        with self._lock:
            self._adopt(cluster)
            self._fanout = Fanout(watermark, self.view)
            self._is_accepting = True

    def move_to(self, cluster: Cluster) -> None:
        """Go on in a new session, perhaps on another timeline: the live reader has reconnected.

        A subscription that was given more than the history of `cluster` holds ends with an error.
        """
        with self._lock:  # from the check to the end: a subscription that came in between would not be checked
            sent_back, lost = self._apart_from(cluster)
            for subscription in (*sent_back, *lost):
                self._forget(subscription)
            self._fanout.restart()
            self._adopt(cluster)
        for subscription in sent_back:
            self.send_back(subscription)  # its own reader checks what the new timeline has
        for subscription, error in lost.items():
            self.fail(subscription, error)

    def _apart_from(self, cluster: Cluster) -> tuple[list[Subscription], dict[Subscription, InvalidResumeToken]]:
        """Return the subscriptions of consumers that can't follow to `cluster`, and others with the reason."""
        sent_back: list[Subscription] = []
        lost: dict[Subscription, InvalidResumeToken] = {}
        for subscription in self._open:
            if subscription.when_sent_back is not None and cluster.ids != self.ids:
                sent_back.append(subscription)
                continue
            try:
                cluster.check(subscription.after, self.ids)
            except InvalidResumeToken as exc:
                lost[subscription] = exc
        return sent_back, lost

    def _adopt(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ids = cluster.ids

    def check_cluster(self, cluster: Cluster) -> None:
        """Refuse a server whose history does not hold everything that was dispatched."""
        cluster.check(before_commits_at(self._fanout.joinable_from), self.ids)

    def subscribe(self, selection: Selection, mailbox: Mailbox | AsyncMailbox) -> Subscription:
        """Feed `mailbox` from now on; `begin_at` sets the exact position later."""
        with self._lock:
            self._check_accepting()
            subscription = Subscription(selection, BEFORE_ALL, mailbox)
            self._open.add(subscription)
            self._fanout.add(subscription)
            return subscription

    def begin_at(self, subscription: Subscription, lsn: int, timeline: int) -> bool:
        """Let a new subscription begin with the first transaction that commits at or after `lsn`.

        Returns:
            False, and does nothing, if the live reader reads another timeline than the one that has this LSN.
        """
        position = before_commits_at(lsn)
        with self._lock:
            if self.cluster.timeline != timeline:
                return False
            subscription.after = max(subscription.after, position)
            subscription.mailbox.begin_at(position)
            return True

    def resume(
        self, selection: Selection, after: RawPosition, mailbox: Mailbox | AsyncMailbox, ids: Ids
    ) -> tuple[Subscription, bool]:
        """Feed `mailbox` with everything beyond `after`; return also whether the subscription is LIVE.

        If it is not, a catch-up reader has to feed it. `ids` are those of the cluster on which `after` was checked.

        Raises:
            InvalidResumeToken: the live reader has moved to another timeline since, which does not have `after`.
        """
        with self._lock:
            self._check_accepting()
            self.cluster.check(after, ids)
            subscription = Subscription(selection, after, mailbox)
            self._open.add(subscription)
            mailbox.begin_at(after)
            is_live = self._fanout.joinable_from <= commit_lsn_of(after)
            if is_live:
                self._fanout.add(subscription)
            return subscription, is_live

    def _check_accepting(self) -> None:
        if self._is_closed:
            raise store_closed()
        if not self._is_accepting:
            raise StreamError("the hub stopped while the stream was being opened: open it again")

    def dispatch(self, burst: Burst) -> list[Subscription]:
        """Put a burst into the mailboxes; return the subscriptions that were full and are DETACHED now."""
        with wake_together(), self._lock:
            return self._fanout.dispatch(burst)

    def pass_over(self, lsn: int) -> list[Subscription]:
        """See `Fanout.pass_over`; catch-up readers have to feed the returned subscriptions."""
        with self._lock:
            return self._fanout.pass_over(lsn)

    def join(self, subscription: Subscription, reader_watermark: int) -> bool:
        """Take a subscription over from a nearby catch-up reader; return whether the reader is done with it."""
        with self._lock:
            if subscription not in self._open:
                return True
            if subscription.state is State.DETACHED and reader_watermark + _NEAR_BYTES < self._fanout.watermark:
                return False
            return self._fanout.join(subscription, reader_watermark)

    def take_in(self, subscription: Subscription, reader_watermark: int, ids: Ids) -> bool:
        """Take a consumer's subscription over from its own reader, as `join` does; return whether it is LIVE.

        `ids` are those of the cluster that its reader reads. It stays with its reader if the two are not near.
        """
        with self._lock:
            distance = self._fanout.watermark - reader_watermark
            if not self._is_accepting or ids != self.ids:
                return False
            if subscription.state is State.DETACHED and abs(distance) > _NEAR_BYTES:
                return False
            self._open.add(subscription)
            return self._fanout.join(subscription, reader_watermark)

    def give_back(self, subscription: Subscription) -> None:
        """Stop feeding a consumer's subscription: its own reader goes on after its `after`."""
        with self._lock:
            self._forget(subscription)

    def send_back(self, subscription: Subscription) -> None:
        """Have a consumer's own reader go on, for a reason of the hub's."""
        self.give_back(subscription)
        if subscription.when_sent_back is not None:
            subscription.when_sent_back()

    def leave(self, subscription: Subscription) -> None:
        """Stop buffering changes for a subscription that no catch-up reader feeds any more."""
        with self._lock:
            self._fanout.detach(subscription)

    def is_open(self, subscription: Subscription) -> bool:
        """Return whether the subscription's stream is still open."""
        with self._lock:
            return subscription in self._open

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription, and drop what its mailbox holds."""
        with self._lock:
            self._forget(subscription)
        subscription.mailbox.close()

    def abandon(self, subscription: Subscription) -> None:
        """Have the hub thread unsubscribe soon.

        Takes no lock: the garbage collector may have interrupted a thread that holds it.
        """
        self._abandoned.append(subscription)

    def forget_abandoned(self) -> None:
        """Unsubscribe what was abandoned; runs on the hub thread."""
        while self._abandoned:
            self.unsubscribe(self._abandoned.popleft())

    def fail(self, subscription: Subscription, error: BaseException) -> None:
        """End one stream with its own copy of an error, after its buffered changes; a consumer's reader goes on."""
        if subscription.when_sent_back is not None:
            self.send_back(subscription)
            return
        with self._lock:
            self._forget(subscription)
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        subscription.mailbox.fail(own)

    def end(self) -> list[Subscription]:
        """Accept no subscription until the next `begin`; return the open ones, which the caller has to fail.

        They are forgotten at once: the next fan-out may begin further on, which would leave a gap.
        """
        with self._lock:
            return self._forget_all()

    def close(self) -> None:
        """Close every mailbox, and accept no subscription ever again."""
        with self._lock:
            self._is_closed = True
            subscriptions = self._forget_all()
        for subscription in subscriptions:
            subscription.mailbox.close()

    def after_fork(self) -> None:
        """Replace the lock in a child process, where its holder may not exist."""
        self._lock = threading.Lock()

    def _forget_all(self) -> list[Subscription]:
        self._is_accepting = False
        subscriptions = list(self._open)
        for subscription in subscriptions:
            self._forget(subscription)
        return subscriptions

    def _forget(self, subscription: Subscription) -> None:
        self._open.discard(subscription)
        self._fanout.forget(subscription)


def store_closed(cause: BaseException | None = None) -> StoreClosed:
    """Make the error for a stream that is opened in a closed store."""
    error = StoreClosed("the store is closed: open a new one")
    error.__cause__ = cause
    return error
