"""Gives the documents of an event a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.changes.events import ChangeEvent, twin_of
from pgdoc.model.documents import to_be_decoded_by
from pgdoc.model.table_names import is_table_name

if TYPE_CHECKING:
    from pgdoc.model.typed.reader import ModelReader

__all__ = ["with_model"]


def with_model(event: ChangeEvent[Any], reader: ModelReader[Any] | None) -> ChangeEvent[Any]:
    """Return the event with documents of the model. Rows of a table, and events without a reader, stay as they are."""
    if reader is None or is_table_name(event.collection):
        return event
    typed = twin_of(event)
    state = typed.__dict__
    state["_decode"] = reader
    for name in _IMAGES if "_part" in state else _IMAGES & state.keys():  # others are made with the reader
        document = getattr(event, name)
        state[name] = None if document is None else to_be_decoded_by(reader, document)
    return typed


_IMAGES: Final = frozenset(("full_document", "full_document_before_change"))
