"""The checkpoints that an open stream has asked for; a failover can undo the last ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.model.tokens import Mark

if TYPE_CHECKING:
    from pgdoc.model.positions import RawPosition

__all__ = ["AskedCheckpoints"]


class AskedCheckpoints:
    """The last two checkpoints that a stream has asked for, whether or not their transactions were committed.

    The stream's thread notes them, in one assignment, and the consumer's thread reads them after a failover.

    Attributes:
        unsure: the last one before a failover, if nobody knows whether that undid it. No later one may be stored unless
            this one is. Written by the consumer's thread.
    """

    def __init__(self) -> None:
        self.unsure = Mark()
        self._last = Mark(), Mark()

    def note(self, mark: Mark) -> None:
        """Note a checkpoint that a transaction is about to store."""
        last, _ = self._last
        if mark.position > last.position:
            self._last = mark, last

    @property
    def is_empty(self) -> bool:
        """Whether the stream makes no checkpoints."""
        return self._last[0].position == Mark().position

    def find_undone(self, stored: RawPosition) -> Mark | None:
        """Return a checkpoint that a server lacks, whose last one is at `stored`; `None` if perhaps none was undone.

        If only the last one is missing, its transaction may have failed, and its event may still be in work.
        """
        last, before = self._last
        if before.position > stored:
            return before
        if last.position > stored:
            self.unsure = last
        return None
