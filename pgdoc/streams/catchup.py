"""Reading on from the WAL for streams that resume from the past, or whose buffer ran full.

At most `READERS` catch-up readers run in a process; streams at about the same place share one, the others wait their
turn. A reader stops reading while a mailbox is full, since the WAL is the overflow buffer, but for seconds only: a
walsender that can't send holds up the server's shutdown. Then the full stream leaves the group, and comes back when its
mailbox has room.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from pgdoc.changes.fanout import State, Subscription
from pgdoc.changes.router import Router
from pgdoc.errors import PgdocError, ServerUnreachable
from pgdoc.model.positions import before_commits_at
from pgdoc.replication.session import ReplicationSession, open_reader, read_burst
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.faults import internal_error
from pgdoc.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgdoc.changes.change import Change
    from pgdoc.changes.router import View
    from pgdoc.streams.hub import Hub

logger = logging.getLogger("pgdoc.catchup")

READERS = 2
_SAME_PLACE_BYTES = 16 << 20
_PATIENCE_S = 5.0
_PATIENCE_IN_COMPANY_S = 1.0
_READ_S = 0.05
_LOOK_S = 0.5
_RETRY_S = 1.0

Left = dict[Subscription, list["Change"]]


class Group:
    """The subscriptions that share a reader.

    Attributes:
        waited_s: for how many seconds each has kept it waiting.
        router: finds what each of them wants.
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

    def remove(self, subscription: Subscription) -> None:
        """Let one go."""
        del self.waited_s[subscription]
        self.router.remove(subscription.selection)


class CatchUp:
    """The catch-up readers of one hub.

    Args:
        hub: what the streams come from and go back to.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._waiting: dict[Subscription, None] = {}
        self._fed: set[Subscription] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()

    def take_over(self, subscription: Subscription) -> None:
        """Feed a subscription that is AWAY, as soon as its mailbox has room."""
        subscription.mailbox.call_when_room(lambda: self._hub.has_room(subscription))

    def stop(self) -> None:
        """Let all readers end soon."""
        self._closing.set()

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that read at present."""
        with self._lock:
            return list(self._threads)

    def queue(self, subscription: Subscription) -> None:
        """Let a subscription whose mailbox has room wait for a reader.

        A mailbox may say so twice. So whoever is being fed waits until that reader is done with it, and whoever is LIVE
        when its turn comes needs none: if it is sent away later, that is another call.
        """
        if not self._hub.knows(subscription):
            return
        with self._lock:
            if not self._closing.is_set():
                self._waiting[subscription] = None
                self._have_reader()

    def _have_reader(self) -> None:
        if len(self._threads) < READERS:
            thread = threading.Thread(target=self._run, name="pgdoc-catchup", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _run(self) -> None:
        while group := self._next_group():
            try:
                with deadline_scope(closing=self._closing):
                    self._feed(group)
            except PgdocError as exc:
                self._after(group, exc)
            except Exception as exc:  # noqa: BLE001 (a bug must reach the streams, not vanish with the thread)
                self._after(group, internal_error("catching up failed", exc, logger))

    def _next_group(self) -> Group | None:
        """Take the stream that has waited longest, and those that are at about its place."""
        with self._lock:
            for subscription in [each for each in self._waiting if each.state is State.LIVE]:
                del self._waiting[subscription]
            ready = [each for each in self._waiting if each not in self._fed]
            if not ready or self._closing.is_set():
                self._threads.discard(threading.current_thread())
                return None
            place = ready[0].after[0]
            group = [each for each in ready if abs(each.after[0] - place) <= _SAME_PLACE_BYTES]
            for subscription in group:
                del self._waiting[subscription]
            self._fed.update(group)
        return Group(group, self._hub.view)

    def _release(self, group: Group, subscription: Subscription) -> None:
        """Let one go from its reader; if it waits already, another may begin."""
        group.remove(subscription)
        with self._lock:
            self._fed.discard(subscription)
            if subscription in self._waiting and not self._closing.is_set():
                self._have_reader()

    def _after(self, group: Group, exc: PgdocError) -> None:
        """Queue again those who were being fed, or end them where a retry can't mend it."""
        for subscription in group:
            self._hub.leave(subscription)
        if exc.resumable:
            logger.info("catching up again in %s s: %s", _RETRY_S, exc)
            self._closing.wait(_RETRY_S)
        for subscription in list(group):
            self._release(group, subscription)
            if exc.resumable:
                self.take_over(subscription)
            else:
                self._hub.fail(subscription, exc)

    def _feed(self, group: Group) -> None:
        self._check_server()
        at = min(subscription.after for subscription in group)[0]
        opened = open_reader(
            self._hub.source, at, purpose=f"catch-up {self._hub.source.schema}", check=self._hub.check_origin
        )
        try:
            while group and not self._closing.is_set():
                self._step(opened, group)
        finally:
            opened.reader.close()

    def _step(self, opened: ReplicationSession, group: Group) -> None:
        """Read a burst, put it everywhere, and hand over those who have come far enough."""
        self._check_server()
        burst, has_frames = read_burst(opened, _READ_S)
        reached = before_commits_at(burst.watermark)
        selected = group.router.route(burst.changes)
        left = {each: each.put(selected.get(each.selection, []), reached) for each in group}
        left = {subscription: changes for subscription, changes in left.items() if changes}
        if left:
            self._wait_for_room(opened, group, left, burst.watermark)
        opened.reader.confirm(burst.watermark)
        if not has_frames:
            opened.reader.ask()
        for subscription in [each for each in group if self._hub.join(each, burst.watermark)]:
            self._release(group, subscription)

    def _wait_for_room(self, opened: ReplicationSession, group: Group, left: Left, reached: int) -> None:
        """Put the rest as room is made; who is full for too long leaves the group."""
        deadline = time.monotonic() + _PATIENCE_S
        for subscription, changes in left.items():
            began, rest = time.monotonic(), changes
            patience_s = self._patience_s(group, subscription)
            while rest and self._has_room(opened, subscription, min(deadline, began + patience_s)):
                rest = subscription.put(rest, before_commits_at(reached))
            group.waited_s[subscription] += time.monotonic() - began
            if rest:
                self._hub.leave(subscription)
                self._release(group, subscription)
                self.take_over(subscription)

    def _patience_s(self, group: Group, subscription: Subscription) -> float:
        """Give how long to wait for a subscription; where others could use the reader, all its waits count."""
        has_company = len(group) > 1 or bool(self._waiting)
        return max(0.0, _PATIENCE_IN_COMPANY_S - group.waited_s[subscription]) if has_company else _PATIENCE_S

    def _has_room(self, opened: ReplicationSession, subscription: Subscription, deadline: float) -> bool:
        """Wait until it has; give `False` where that is not so by the deadline."""
        room = Wakeup()
        subscription.mailbox.call_when_room(room.set)
        while not self._closing.is_set():
            self._check_server()
            opened.reader.report()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            if room.wait(min(left_s, _LOOK_S)):
                return True
        return False

    def _check_server(self) -> None:
        """Go when the hub had to: a server that stops waits until everyone else has read all of the WAL."""
        if self._hub.is_reconnecting:
            raise ServerUnreachable("the hub has lost the server")
