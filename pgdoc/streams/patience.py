"""`Patience`: lets the hub read more slowly while all of its streams have more to do than they can."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pgdoc.streams.subscriptions import Subscriptions

__all__ = ["Patience"]

_EVERY: Final = 100
"""Changes between two looks at the mailboxes: a look at each burst would delay the streams that it has just woken."""

_AT_MOST_S: Final = 0.5
_IN_ALL_S: Final = 5.0
_SHORTEST_S: Final = 0.002
_LONGEST_S: Final = 0.02


class Patience:
    """Waits between two bursts while each stream that the hub feeds has a mailbox that is more than half full.

    Reading on would give none of them an event sooner. It would only fill the mailboxes, until each stream needs a
    reader of its own that decodes the same changes again, which costs an overloaded process still more.

    While the hub waits, the server keeps WAL for it, which a shutdown would send first. So the hub waits for five
    seconds at most, and gets back a second for each that it does not wait. A stream with room ends the wait at once.

    Used by the hub thread only.
    """

    def __init__(self, subscriptions: Subscriptions, closing: threading.Event) -> None:
        self._subscriptions = subscriptions
        self._closing = closing
        self._left_s = _IN_ALL_S
        self._counted_at = time.monotonic()
        self._changes = 0  # since the last look

    def wait(self, changes: int, report: Callable[[], object]) -> None:
        """Wait where necessary after a burst of so many changes; call `report` meanwhile, to answer the server."""
        self._changes += changes
        if self._changes < _EVERY:
            return
        self._changes = 0
        began = time.monotonic()
        self._left_s = min(_IN_ALL_S, self._left_s + began - self._counted_at)
        ends, pause_s = began + min(_AT_MOST_S, self._left_s), _SHORTEST_S
        while time.monotonic() < ends and not self._subscriptions.has_room and not self._closing.wait(pause_s):
            report()
            pause_s = min(2 * pause_s, _LONGEST_S)
        self._counted_at = time.monotonic()
        self._left_s -= self._counted_at - began
