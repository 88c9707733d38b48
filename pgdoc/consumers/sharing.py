"""Lets the hub feed a durable consumer that is near the end of the WAL.

A server decodes the WAL once for each walsender that reads. So the consumers of a store share the hub's walsender with
its streams:

1. A consumer catches up on its own slot. Near the end of the WAL its reader hands over to the hub, by the rules by
   which a catch-up reader does (`changes.fanout`), and is closed. The slot stays, and holds back the WAL.
2. What is acknowledged is stored in the catalog, under the claim, where the next takeover finds it. From time to time
   the owner's session advances the slot, also under the claim (`OwnedSlot.heartbeat`).
3. The consumer's own reader goes on, after the last change that the hub has put, when the mailbox is full; when the hub
   loses its connection, ends, moves to another timeline, or meets what it can't read; when the slot is not as it was
   left, or can't be advanced. A consumer that loses its session leaves the hub at once.
4. A consumer that was sent back stays on its own slot for a while, for opening a reader takes the server some work.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING

from pgdoc.changes.fanout import State
from pgdoc.errors import PgdocError
from pgdoc.model.positions import BEFORE_ALL, commit_lsn_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.fanout import Subscription
    from pgdoc.model.positions import Ids, RawPosition
    from pgdoc.replication.reading import Reading
    from pgdoc.streams.hub import Hub

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_START_PAUSE_S = 30.0


class HubShare:
    """What the hub of a store does for one consumer; used by the consumer's thread, except `live_position`.

    Args:
        has_company: whether the store has another consumer, so that a hub would save a walsender.
    """

    def __init__(self, hub: Hub, subscription: Subscription, has_company: Callable[[], bool]) -> None:
        self._hub = hub
        self._subscription = subscription
        self._has_company = has_company
        self._pipe: tuple[socket.socket, socket.socket] | None = None  # `wait` reads, `wake` writes on any thread
        subscription.when_sent_back = self.wake
        self._next_start = self._next_join = self._joined_at = 0.0
        self._pause_s = _FIRST_PAUSE_S

    @property
    def is_feeding(self) -> bool:
        """Whether the hub feeds the consumer, and is connected."""
        return self._subscription.state is State.LIVE and not self._hub.is_reconnecting

    @property
    def live_position(self) -> RawPosition:
        """The position up to which the hub has put everything, while it feeds the consumer; else the lowest."""
        dispatched = self._hub.subscriptions.dispatched  # read before `state`: see `Fanout`
        return dispatched if self._subscription.state is State.LIVE else BEFORE_ALL

    @property
    def watermark(self) -> int:
        """The watermark of the hub's reader, while it feeds the consumer; else 0."""
        return commit_lsn_of(self.live_position)

    @property
    def wal_end(self) -> int:
        """The highest LSN that the server has reported to the hub, while that feeds the consumer; else 0."""
        return self._hub.wal_end if self._subscription.state is State.LIVE else 0

    @property
    def reading(self) -> Reading | None:
        """How far the hub's reader has come in time, while it feeds the consumer; else `None`."""
        return self._hub.reading if self._subscription.state is State.LIVE else None

    def ask(self) -> None:
        """Have the hub ask the server how far its WAL goes, while it feeds the consumer; for any thread."""
        if self._subscription.state is State.LIVE:
            self._hub.ask()

    def join(self, watermark: int, ids: Ids, plugin: str) -> bool:
        """Hand the consumer over to the hub, if both are near each other; return whether the hub feeds it now.

        The consumer's own reader, which has come to `watermark`, reads the cluster with these `ids` through `plugin`.
        """
        now = time.monotonic()
        if now < self._next_join or not self._is_hub_ready(now) or self._hub.plugin != plugin:
            return False
        if self._pipe is None:
            self._pipe = socket.socketpair()
            for each in self._pipe:
                each.setblocking(False)
        if not self._hub.subscriptions.take_in(self._subscription, watermark, ids):
            return False
        self._joined_at = now
        return True

    @property
    def is_joining(self) -> bool:
        """Whether the hub waits for the consumer's own reader to come to where it was."""
        return self._subscription.state is State.REJOINING

    def _is_hub_ready(self, now: float) -> bool:
        if self._hub.is_started:
            return not self._hub.is_reconnecting
        if now >= self._next_start and self._has_company():
            self._next_start = now + _START_PAUSE_S
            with contextlib.suppress(PgdocError):  # the consumer stays on its own slot
                self._hub.start()
        return False

    def wait(self, session: int, timeout_s: float) -> None:
        """Wait until the hub has sent the consumer back, or the session with this socket has got something.

        Only after `join`.
        """
        assert self._pipe is not None  # noqa: S101
        reads, _ = self._pipe
        poll = select.poll()
        poll.register(session, select.POLLIN)
        poll.register(reads, select.POLLIN)
        for descriptor, _ in poll.poll(timeout_s * 1000):
            if descriptor != session:
                reads.recv(4096)

    def wake(self) -> None:
        """Let `wait` return; for any thread, and takes no lock."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):  # closed, or full of earlier wake-ups
                self._pipe[1].send(b"w")

    def close(self) -> None:
        """Let go of what `wait` uses."""
        for each in self._pipe or ():
            each.close()

    def leave(self) -> None:
        """Take the consumer back from the hub; it can join again after a pause, longer each time that it was short."""
        self._hub.subscriptions.give_back(self._subscription)
        now = time.monotonic()
        if self._joined_at:
            was_long = now - self._joined_at > _LONGEST_PAUSE_S
            self._pause_s = _FIRST_PAUSE_S if was_long else min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._next_join = now + self._pause_s
            self._joined_at = 0.0
