"""All documents that match a filter, by id, for readers in any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pgdoc.query.filters.match import matcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.images import RowImage
    from pgdoc.query.filters.nodes import Node

__all__ = ["Mirrored"]


class Mirrored:
    """The state of a mirror: a `LiveState` without changes to hand out, because mirrors read it in place.

    Args:
        node: the parsed filter.

    Attributes:
        shown: the images as of the last commit, by id. Any thread may look one up. Only `commit` changes it, and `load`
            replaces it, so iterating over it needs the source's lock.
    """

    def __init__(self, node: Node) -> None:
        self._match = matcher(node)
        self._is_loaded = False
        self.shown: dict[str, RowImage] = {}
        # What the next commit does: first replace all, then change these; `None` removes.
        self._replacement: dict[str, RowImage] | None = None
        self._changed: dict[str, RowImage | None] = {}

    @property
    def needs_read(self) -> bool:
        """Whether nothing was read yet."""
        return not self._is_loaded

    def load(self, rows: Iterable[RowImage], *, is_all: bool) -> None:  # noqa: ARG002 (of the protocol)
        """Replace all documents by what was read."""
        found = {}
        for image in rows:
            if image.passes(self._match):
                found[image.id] = image
            image.release()
        self._replacement, self._changed, self._is_loaded = found, {}, True

    def apply(self, before: RowImage | None, after: RowImage | None, event: ChangeEvent) -> bool:  # noqa: ARG002
        """Apply a change of one row; return whether it may change what is shown."""
        if before is not None and (after is None or after.id != before.id):
            self._changed[before.id] = None
        if after is not None:
            self._changed[after.id] = after if after.passes(self._match) else None
        return True

    def clear(self, event: ChangeEvent) -> bool:  # noqa: ARG002
        """Apply a truncation of the collection."""
        self._replacement, self._changed, self._is_loaded = {}, {}, True
        return True

    def commit(self) -> list[NoReturn]:
        """Show all changes since the last commit; hands out none."""
        if not self._is_loaded:
            return []
        if self._replacement is not None:
            self.shown, self._replacement = self._replacement, None
        for document_id, image in self._changed.items():
            if image is None:
                self.shown.pop(document_id, None)
            else:
                self.shown[document_id] = image
        self._changed = {}
        return []
