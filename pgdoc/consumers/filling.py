"""Fills the mailbox of a consumer's stream with what its own reader reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgdoc.changes.change import Burst
from pgdoc.changes.events import from_change
from pgdoc.changes.router import Router
from pgdoc.errors import UnreadableChange
from pgdoc.model.json_codec import decode_comparable
from pgdoc.model.positions import before_commits_at
from pgdoc.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.fanout import Subscription
    from pgdoc.consumers.owned_slot import OwnedSlot
    from pgdoc.model.positions import Ids

PATIENCE_S = 5.0
"""How long a reader stays open while the mailbox is full."""

_HEARTBEAT_S = 0.5


class Filling:
    """Puts bursts into the mailbox of one subscription; used by the consumer's thread.

    Args:
        ids: those of the cluster that is read.
        ends: whether the stream has ended.
    """

    def __init__(self, subscription: Subscription, ids: Callable[[], Ids], ends: Callable[[], bool]) -> None:
        self._subscription = subscription
        self._router = Router(lambda change: from_change(change, ids(), decode_text=decode_comparable))
        self._router.add(subscription.selection)
        self._ends = ends

    def read(self, owned: OwnedSlot, timeout_s: float) -> Burst:
        """Read the next burst; if its next change can't be read, put those before it, and raise the error."""
        try:
            return owned.read(timeout_s)
        except UnreadableChange:
            before_it = Burst(owned.received, 0, None)
            while not self.put(before_it, owned) and not self._ends():  # which drops what it has put already
                pass
            raise

    def put(self, burst: Burst, owned: OwnedSlot) -> bool:
        """Put what the stream wants, as the mailbox gets room; return `False` if it stays full."""
        left = self._router.route(burst.changes).get(self._subscription.selection, [])
        position = before_commits_at(burst.watermark)
        left = self._subscription.put(left, position)
        deadline = time.monotonic() + PATIENCE_S
        while left and self.wait_for_room(owned, deadline):
            left = self._subscription.put(left, position)
        return not left

    def wait_for_room(self, owned: OwnedSlot, deadline: float = float("inf")) -> bool:
        """Keep the consumer owned until the mailbox has room; return whether it has."""
        room = Wakeup()
        self._subscription.mailbox.call_when_room(room.set)
        owned.heartbeat()
        while not self._ends() and time.monotonic() < deadline:
            if room.wait(owned.patience_s(_HEARTBEAT_S)):
                return True
            owned.heartbeat()
        return False
