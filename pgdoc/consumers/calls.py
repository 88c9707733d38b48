"""Calls: how another session has a consumer's progress stored at once, to wait for it.

An idle consumer learns the end of the WAL twice a second, or every ten seconds while it shares a hub, and stores its
progress every few seconds. `Store.wait_for` must take milliseconds:

1. The waiter flushes the WAL, and notifies the channel of the consumer. It then reads the consumer's rows in the
   catalog, which alone it believes.
2. The owner listens on the session that holds its claim. After a call it asks that session how far the WAL is flushed,
   has its reader ask the walsender for its position until that is reached, and stores its progress when it has news.
3. Any role can notify. A call says nothing and costs little: what it causes is what the owner does by itself, more
   often, and saving takes at most a third of the thread's time. A session that is flooded with calls is looked at once
   in a millisecond.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from pgdoc.model.positions import before_commits_at
from pgdoc.runtime.retry import growing_pause_s

if TYPE_CHECKING:
    from pgdoc.consumers.ownership import Ownership

__all__ = ["Calls"]

_OPEN_S: Final = 60.0
"""How long a call is answered. A waiter that waits longer calls again."""

_EAGER_S: Final = 0.02
"""How long to wait for the reader and the handler before what is acknowledged so far is stored."""

_LONGEST_PAUSE_S: Final = 0.1
_FLOOD_S: Final = 0.005
_FLOOD_PAUSE_S: Final = 0.001
_SAVE_PAUSE_FACTOR: Final = 2


class Calls:
    """The calls for a consumer's progress, and when to do something about them; used by the consumer's thread."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self._target: int | None = None  # the LSN up to which the WAL was flushed at the last call; None for no call
        self._called_at = self._next_try = self._rests_until = 0.0
        ownership.listen()

    def look(self) -> bool:
        """Take what the owner's session has got; return whether that was a call.

        Raises:
            PgdocError: the session has ended.
        """
        flushed = self._ownership.wal_end()[1]
        if not self._ownership.take_call():
            return False
        now = time.monotonic()
        if now - self._called_at < _FLOOD_S:
            time.sleep(_FLOOD_PAUSE_S)
        self._target, self._called_at = flushed, now
        self._next_try = max(now, self._rests_until)
        return True

    @property
    def is_open(self) -> bool:
        """Whether a call is not answered yet."""
        return self._target is not None

    def is_due(self, now: float) -> bool:
        """Return whether to try to answer now."""
        return self._target is not None and now >= self._next_try

    def lacks_wal(self, watermark: int) -> bool:
        """Return whether the reader, which has come to `watermark`, has to read on before a call can be answered."""
        return self._target is not None and watermark < self._target

    def is_new(self, now: float) -> bool:
        """Return whether to wait for an answer to the call before progress is stored that is none."""
        return now - self._called_at <= _EAGER_S

    def is_answered_by(self, saved: tuple[int, ...]) -> bool:
        """Return whether to store the position `saved` answers the call."""
        return self._target is None or saved >= before_commits_at(self._target)

    def note_save(self, took_s: float, saved: tuple[int, ...]) -> None:
        """Note that everything up to the position `saved` is stored now, and how long that took."""
        self._rests_until = time.monotonic() + _SAVE_PAUSE_FACTOR * took_s
        if self.is_answered_by(saved):
            self._target = None

    def pause(self) -> None:
        """Note that nothing more can be done now."""
        now = time.monotonic()
        waited_s = now - self._called_at
        self._next_try = max(now + growing_pause_s(waited_s, _LONGEST_PAUSE_S), self._rests_until)
        if waited_s > _OPEN_S:
            self._target = None

    def patience_s(self, longest_s: float) -> float:
        """Return how long the thread may wait for something else."""
        return longest_s if self._target is None else min(longest_s, max(0.0, self._next_try - time.monotonic()))
