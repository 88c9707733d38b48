"""Catch-up readers: they read the WAL for streams that resume from the past, or whose mailbox was full.

A hub runs at most `READERS` of them. Streams at nearby positions share one; the others wait their turn. A reader stops
reading while a mailbox is full, since the WAL is the overflow buffer, but only for seconds: a walsender that can't send
delays the server's shutdown. Then the stream leaves the group, and is queued again when its mailbox has room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from pgdoc.changes.fanout import State, Subscription
from pgdoc.changes.registry import TableAdded
from pgdoc.changes.router import Router, named_by, names_of
from pgdoc.errors import PgdocError, ServerUnreachable
from pgdoc.model.positions import Lsn, before_commits_at, commit_lsn_of
from pgdoc.replication.detours import find_poison, open_detour, unreadable, wants_any
from pgdoc.replication.routes import STRAIGHT, Route, UnsentChange
from pgdoc.replication.session import ReplicationSession, open_reader, read_burst
from pgdoc.replication.traffic import note_reconnect
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.faults import internal_error
from pgdoc.runtime.retry import Backoff
from pgdoc.runtime.wakeup import Wakeup
from pgdoc.streams.renewal import Renewal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pgdoc.changes.change import Change
    from pgdoc.changes.router import View
    from pgdoc.replication.source import Source
    from pgdoc.streams.subscriptions import Subscriptions

logger = logging.getLogger("pgdoc.catchup")

READERS = 2
_SLOT_PREFIX = "pgdocr"
_NEARBY_BYTES = 16 << 20
_FULL_S = 5.0
_FULL_IN_COMPANY_S = 1.0
"""How long a reader waits for a full mailbox: alone, and in all while other streams could use the reader."""
_READ_S = 0.05
_CHECK_S = 0.5
_RETRY_S = 1.0

Leftovers = dict[Subscription, list["Change"]]
"""The changes that a subscription's mailbox had no room for."""


class Group:
    """The subscriptions that share a reader; used by that reader's thread.

    Attributes:
        waited_s: how long the reader has waited for each of them.
    """

    def __init__(self, subscriptions: Iterable[Subscription], view: View) -> None:
        self.waited_s = dict.fromkeys(subscriptions, 0.0)
        self.router = Router(view)
        for subscription in self.waited_s:
            self.router.add(subscription.selection)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self.waited_s)

    def __len__(self) -> int:
        return len(self.waited_s)

    @property
    def names(self) -> frozenset[str] | None:
        """The collections and tables that they want; `None` for all."""
        return named_by(subscription.selection for subscription in self)

    @property
    def has_topics(self) -> bool:
        """Whether they want messages, too."""
        return any(subscription.selection.topics for subscription in self)

    def remove(self, subscription: Subscription) -> None:
        """Remove one subscription."""
        del self.waited_s[subscription]
        self.router.remove(subscription.selection)


class CatchUp:
    """The catch-up readers of a hub.

    Args:
        wake: makes the hub thread call `queue_requests` soon; called on any thread.
        is_reconnecting: whether the hub has lost its connection.
    """

    def __init__(
        self,
        source: Source,
        subscriptions: Subscriptions,
        *,
        wake: Callable[[], None],
        is_reconnecting: Callable[[], bool],
    ) -> None:
        self._source = source
        self._subscriptions = subscriptions
        self._wake = wake
        self._is_reconnecting = is_reconnecting
        self._closing = threading.Event()

        # Without a lock: any thread appends, the hub thread takes out.
        self._requests: deque[Subscription] = deque()

        # Guards what follows; never held while reading or waiting.
        self._lock = threading.Lock()
        self._waiting: dict[Subscription, None] = {}  # in the order in which they were queued
        self._fed: set[Subscription] = set()  # those in a group; one of them may be waiting, too
        self._threads: set[threading.Thread] = set()

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads that are reading."""
        with self._lock:
            return list(self._threads)

    def stop(self) -> None:
        """Let all readers end soon."""
        self._closing.set()

    def take_over(self, subscription: Subscription) -> None:
        """Feed a DETACHED subscription once its mailbox has room; a durable consumer's goes back to its own reader."""
        if subscription.when_sent_back is not None:
            self._subscriptions.send_back(subscription)
            return
        subscription.mailbox.call_when_room(lambda: self.request_feed(subscription))

    def request_feed(self, subscription: Subscription) -> None:
        """Have the hub thread queue a subscription; takes no lock, because a user's thread may be interrupted here."""
        self._requests.append(subscription)
        self._wake()

    def queue_requests(self) -> None:
        """Queue what was requested; runs on the hub thread."""
        while self._requests:
            self.queue(self._requests.popleft())

    def queue(self, subscription: Subscription) -> None:
        """Let a subscription whose mailbox has room wait for a reader.

        A mailbox may report room twice: a subscription that is being fed waits until its reader releases it. One that
        is LIVE when its turn comes needs no reader.
        """
        if not self._subscriptions.is_open(subscription):
            return
        with self._lock:
            if not self._closing.is_set():
                self._waiting[subscription] = None
                self._ensure_reader()

    def _ensure_reader(self) -> None:
        if len(self._threads) < READERS:
            thread = threading.Thread(target=self._run, name="pgdoc-catchup", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _run(self) -> None:
        retry = Backoff(_RETRY_S, _RETRY_S)
        while group := self._next_group():
            try:
                with deadline_scope(closing=self._closing):
                    self._feed(group)
            except PgdocError as exc:
                self._give_back(group, exc, retry)
            except Exception as exc:  # noqa: BLE001 (a bug must reach the streams, not vanish with the thread)
                self._give_back(group, internal_error("catching up failed", exc, logger), retry)

    def _next_group(self) -> Group | None:
        """Return the subscription that has waited longest and those at nearby positions; `None` ends the thread."""
        with self._lock:
            for subscription in [each for each in self._waiting if each.state is State.LIVE]:
                del self._waiting[subscription]
            ready = [each for each in self._waiting if each not in self._fed]
            if not ready or self._closing.is_set():
                self._threads.discard(threading.current_thread())
                return None
            first_lsn = commit_lsn_of(ready[0].after)
            group = [each for each in ready if abs(commit_lsn_of(each.after) - first_lsn) <= _NEARBY_BYTES]
            for subscription in group:
                del self._waiting[subscription]
            self._fed.update(group)
        return Group(group, self._subscriptions.view)

    def _release(self, group: Group, subscription: Subscription) -> None:
        """Remove a subscription from its reader, and let another reader feed it if it is waiting again."""
        group.remove(subscription)
        with self._lock:
            self._fed.discard(subscription)
            if subscription in self._waiting and not self._closing.is_set():
                self._ensure_reader()

    def _give_back(self, group: Group, exc: PgdocError, retry: Backoff) -> None:
        for subscription in group:
            self._subscriptions.leave(subscription)
        if exc.resumable:
            logger.info("catching up again in %s s: %s", _RETRY_S, exc)
            note_reconnect(self._source, "catch_up")
            retry.wait(self._closing)
        for subscription in list(group):
            self._release(group, subscription)
            if exc.resumable:
                self.take_over(subscription)
            else:
                self._subscriptions.fail(subscription, exc)

    def _feed(self, group: Group) -> None:
        self._check_hub()
        renewal = Renewal(self._source, self._purpose, _SLOT_PREFIX, self._subscriptions.check_cluster)
        session = self._open(group, STRAIGHT)
        try:
            while group and not self._closing.is_set():
                try:
                    watermark = self._step(session, group)
                except UnsentChange as exc:
                    session.reader.close()
                    session = self._go_around(group, session, exc)
                    continue
                except TableAdded:
                    session.reader.close()
                    session = self._open(group, session.route)
                    continue
                if session.route is STRAIGHT:  # a detour ends soon
                    session = renewal.renew_if_due(session, watermark)
                if session.is_used_up and group:
                    session.reader.close()
                    session = self._open(group, STRAIGHT)
        finally:
            session.reader.close()

    @property
    def _purpose(self) -> str:
        return f"catch-up {self._source.schema}"

    def _open(self, group: Group, route: Route) -> ReplicationSession:
        return open_reader(
            self._source,
            min(subscription.after for subscription in group)[0],
            purpose=self._purpose,
            prefix=_SLOT_PREFIX,
            check=self._subscriptions.check_cluster,
            route=route,
            names=names_of(subscription.selection for subscription in group),
        )

    def _go_around(self, group: Group, session: ReplicationSession, unsent: UnsentChange) -> ReplicationSession:
        """Return a session along the next route; if none is left, end the streams that want what can't be read.

        Returns the closed `session` if these are all.
        """
        open_route = partial(self._open, group)
        try:
            return open_detour(open_route, session, unsent)
        except UnsentChange:
            pass
        poison, route = None, STRAIGHT
        if session.route.part.only is None:
            poison, route = find_poison(
                open_route, group.names, unsent, has_topics=group.has_topics, check=self._check_hub
            )
        for subscription in [each for each in group if self._is_stuck(each, poison, unsent)]:
            advice = f"Open it again with resume_after='{Lsn(unsent.until)}' to go on after that transaction"
            error = unreadable(unsent, poison, "the stream", advice)
            selected = group.router.route(unsent.received).get(subscription.selection, [])
            subscription.put(selected, subscription.after)
            self._subscriptions.leave(subscription)
            self._release(group, subscription)
            self._subscriptions.fail(subscription, error)
        if not group:
            return session
        return open_route(route)

    @staticmethod
    def _is_stuck(subscription: Subscription, poison: frozenset[str] | None, unsent: UnsentChange) -> bool:
        is_before = commit_lsn_of(subscription.after) < unsent.until
        return is_before and wants_any(subscription.selection, poison)

    def _step(self, session: ReplicationSession, group: Group) -> int:
        """Put one burst into every mailbox, hand over the subscriptions that have caught up; return the watermark."""
        self._check_hub()
        burst, has_frames = read_burst(session, _READ_S)
        watermark = burst.watermark
        selected = group.router.route(burst.changes)
        leftovers = {each: each.put(selected.get(each.selection, []), before_commits_at(watermark)) for each in group}
        leftovers = {subscription: changes for subscription, changes in leftovers.items() if changes}
        if leftovers:
            self._put_rest(session, group, leftovers, watermark)
        session.reader.confirm(watermark)
        if not has_frames:
            session.reader.ask()
        for subscription in [each for each in group if self._subscriptions.join(each, watermark)]:
            self._release(group, subscription)
        return watermark

    def _put_rest(self, session: ReplicationSession, group: Group, leftovers: Leftovers, watermark: int) -> None:
        """Put the rest as mailboxes get room; a subscription that stays full too long leaves the group."""
        deadline = time.monotonic() + _FULL_S
        for subscription, changes in leftovers.items():
            began, rest = time.monotonic(), changes
            limit_s = self._wait_limit_s(group, subscription)
            while rest and self._wait_for_room(session, subscription, min(deadline, began + limit_s)):
                rest = subscription.put(rest, before_commits_at(watermark))
            group.waited_s[subscription] += time.monotonic() - began
            if rest:
                self._subscriptions.leave(subscription)
                self._release(group, subscription)
                self.take_over(subscription)

    def _wait_limit_s(self, group: Group, subscription: Subscription) -> float:
        """Return how long to wait now; while others could use the reader, earlier waits count."""
        has_company = len(group) > 1 or bool(self._waiting)
        return max(0.0, _FULL_IN_COMPANY_S - group.waited_s[subscription]) if has_company else _FULL_S

    def _wait_for_room(self, session: ReplicationSession, subscription: Subscription, deadline: float) -> bool:
        room = Wakeup()
        subscription.mailbox.call_when_room(room.set)
        while not self._closing.is_set():
            self._check_hub()
            session.reader.report()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            if room.wait(min(left_s, _CHECK_S)):
                return True
        return False

    def _check_hub(self) -> None:
        """End the reader when the hub loses its connection: a stopping server waits for its clients to leave."""
        if self._is_reconnecting():
            raise ServerUnreachable("the hub has lost its connection to the server")
