"""What the source of live queries keeps up to date: a window of documents, an aggregate, or a mirror.

The source drives any `LiveState` the same way. It reads at a place in the WAL and calls `load`, then `apply` for each
change after that place, and `commit` where a transaction's changes end:

    load -> (apply | clear)* -> commit -> (apply | clear)* -> commit ...

While `needs_read` is true, `commit` returns nothing and what is shown stays at its former place. The source may go on
with `apply` and `commit` meanwhile. `load` may come at any time; it stands for the place where its read was made, so
the source must then have applied every change that commits before that place, and apply the others afterwards.

The images of a change are shared by all states. The source calls their `release` once all have seen them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.images import RowImage

__all__ = ["LiveState"]

C = TypeVar("C")


class LiveState(Protocol[C]):
    """A result that changes of rows keep up to date; `C` is the class of its changes."""

    @property
    def needs_read(self) -> bool:
        """Whether the result can't be told without a read; true at first."""

    def load(self, rows: Any, *, is_all: bool) -> None:
        """Replace what is held by what was read.

        Args:
            rows: the rows that a statement read for this state, in the form that the state loads.
            is_all: whether there is nothing beyond.
        """

    def apply(self, before: RowImage | None, after: RowImage | None, event: ChangeEvent) -> bool:
        """Apply a change of one row, of which there may be no image before or after it.

        Returns:
            Whether `commit` has something to do. While this is false, the state need not be told of commits.
        """

    def clear(self, event: ChangeEvent) -> bool:
        """Apply a truncation; return as `apply` does."""

    def commit(self) -> list[C]:
        """Return the changes of the result since the last commit, and make them the ones shown."""
