"""All documents that match a filter, by id, for readers in any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from pgdoc.live.images import copy_of
from pgdoc.model.documents import document_read_as
from pgdoc.query.filters.match import matcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.images import RowImage
    from pgdoc.model.documents import Document
    from pgdoc.model.typed.reader import ModelReader
    from pgdoc.query.filters.nodes import Node

__all__ = ["Mirrored"]


class Mirrored:
    """The state of a mirror: a `LiveState` without changes to hand out, because mirrors read it in place.

    Args:
        node: the parsed filter.
        reader: reads the data as its model; `None` for dicts.

    Attributes:
        shown: the documents as of the last commit, by id, each for all readers. Any thread may look one up. Only
            `commit` changes it, so iterating over it needs the source's lock.
    """

    def __init__(self, node: Node, reader: ModelReader[Any] | None = None) -> None:
        self._match = matcher(node)
        self._reader = reader
        self._is_loaded = False
        self.shown: dict[str, Document[Any]] = {}
        # What the next commit does: first replace all, then change these; `None` removes.
        self._replacement: dict[str, Document[Any]] | None = None
        self._changed: dict[str, Document[Any] | None] = {}

    @property
    def needs_read(self) -> bool:
        """Whether nothing was read yet."""
        return not self._is_loaded

    def prepared(self, images: Iterable[RowImage]) -> dict[str, Document[Any]]:
        """Return what `load` takes of these documents. Any thread may call it: it changes nothing here."""
        found = {}
        for image in images:
            if image.passes(self._match):
                found[image.id] = self._given(image)
            image.release()
        return found

    def load(self, rows: dict[str, Document[Any]], *, is_all: bool) -> None:  # noqa: ARG002 (of the protocol)
        """Replace all documents by what was read."""
        self._replacement, self._changed, self._is_loaded = rows, {}, True

    def apply(self, before: RowImage | None, after: RowImage | None, event: ChangeEvent) -> bool:  # noqa: ARG002
        """Apply a change of one row; return whether it may change what is shown."""
        if before is not None and (after is None or after.id != before.id):
            self._changed[before.id] = None
        if after is not None:
            self._changed[after.id] = self._given(after) if after.passes(self._match) else None
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
        for document_id, document in self._changed.items():
            if document is None:
                self.shown.pop(document_id, None)
            else:
                self.shown[document_id] = document
        self._changed = {}
        return []

    def _given(self, image: RowImage) -> Document[Any]:
        """Return the document for readers: its data is decoded once, at the first access."""
        document = image.document
        return copy_of(document) if self._reader is None else document_read_as(self._reader, document)
