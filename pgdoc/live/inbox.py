"""What a handle of a live query has yet to hand out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.model.positions import Ids, RawPosition

__all__ = ["LiveBatch", "LiveInbox", "LivePlace"]

C = TypeVar("C")

MOST_BATCHES: Final = 1_000
MOST_CHANGES: Final = 10_000
MOST_BYTES: Final = 64 << 20
"""A handle that is further behind goes on with the difference to the newest result."""


class LivePlace(NamedTuple):
    """A place in the WAL, between transactions."""

    position: RawPosition
    ids: Ids


class LiveBatch(NamedTuple, Generic[C]):
    """The changes that lead from one place to the next.

    Attributes:
        place: where the result has come to with them.
        size_bytes: the size of the messages that the changes come from.
    """

    changes: list[C]
    place: LivePlace
    size_bytes: int


class LiveInbox(Generic[C]):
    """The batches that one handle has not taken. The lock of its source guards it.

    Args:
        wake: called when there is something new; returns at once.

    Attributes:
        wake: see there.
        is_behind: whether there were too many; the handle goes on with the difference to the newest result.
        error: what ended the query, after the batches.
        is_over: whether nothing more comes.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.batches: deque[LiveBatch[C]] = deque()
        self._count = self._size_bytes = 0
        self._has_begun = False
        self.when_abandoned: Callable[[], object] | None = None  # set while a handle follows a query with it
        self.is_behind = False
        self.error: BaseException | None = None
        self.is_over = False

    def begin(self) -> None:
        """Take all batches from now on: the handle has what is shown."""
        self._has_begun = True

    def put(self, batch: LiveBatch[C]) -> None:
        """Add the next batch."""
        if not self._has_begun:
            return
        if not self.is_behind:
            self.batches.append(batch)
            self._count += len(batch.changes)
            self._size_bytes += batch.size_bytes
            is_much = self._count > MOST_CHANGES or self._size_bytes > MOST_BYTES
            if len(self.batches) > MOST_BATCHES or (is_much and len(self.batches) > 1):
                self.fall_behind()
        self.wake()

    def take(self, batch: LiveBatch[C]) -> None:
        """Remove the first batch, if it is this one: the handle has taken it."""
        if self.batches and self.batches[0] is batch:
            self.batches.popleft()
            self._count -= len(batch.changes)
            self._size_bytes -= batch.size_bytes

    def fall_behind(self) -> None:
        """Drop all batches: the handle needs the difference."""
        self.clear()
        self.is_behind = True

    def abandon(self) -> None:
        """Have the handle's query forgotten soon: for the garbage collector, which takes no lock."""
        when_abandoned = self.when_abandoned
        if when_abandoned is not None:
            when_abandoned()

    def clear(self) -> None:
        """Drop all batches."""
        self.batches.clear()
        self._count, self._size_bytes, self.is_behind = 0, 0, False

    def end(self, error: BaseException | None) -> None:
        """Let nothing more come; the handle raises `error` after the batches."""
        if not self.is_over:
            self.error, self.is_over = error, True
        self.wake()
