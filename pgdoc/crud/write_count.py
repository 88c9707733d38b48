"""`WriteCount`, what `update_many` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

__all__ = ["WriteCount"]


class WriteCount(int):
    """How many documents an update changed, as an integer.

    Attributes:
        matched: how many documents the filter matched when the call began.
        modified: how many of them changed; the same as the integer.
    """

    matched: int
    modified: int

    def __new__(cls, modified: int, matched: int) -> Self:  # noqa: D102 (see the class)
        count = super().__new__(cls, modified)
        count.modified, count.matched = modified, matched
        return count

    def __reduce__(self) -> tuple[type[Self], tuple[int, int]]:
        """Copy and pickle it with both numbers."""
        return type(self), (self.modified, self.matched)
