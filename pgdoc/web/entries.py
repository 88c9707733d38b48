"""What a source has for its readers: a change of a stream, or a place of a live query. Without I/O.

All readers of a `Broadcast` share an entry, which is rendered once for each transport. The entries of one reader keep
no text, so that a browser which reads slowly takes the memory of one write, not that of all that it has yet to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.changes.event_json import document_shape
from pgdoc.changes.events import twin_of
from pgdoc.changes.value_json import encode_json
from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.web.messages import CHANGE, CHANGES, DOCUMENTS, VALUE, BrowserMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.changes import LiveChange
    from pgdoc.model.documents import Document
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.web.messages import MessageForm

__all__ = [
    "ChangeEntry",
    "ChangesEntry",
    "DocumentsEntry",
    "SourceEntry",
    "ValueEntry",
    "document_json",
    "event_json",
    "json_array",
    "value_json",
]


class SourceEntry:
    """One message of a source.

    Attributes:
        event: the name of the message.
        place: where to resume after it.
        token: the same as text.
    """

    event = ""

    def __init__(self, place: ResumeToken) -> None:
        self.place = place
        self.token = str(place)
        self._is_shared = False
        self._data: bytes | None = None
        self._texts: dict[MessageForm, bytes] = {}

    def share(self) -> None:
        """Keep the texts from now on: several readers will read them."""
        self._is_shared = True

    @property
    def size(self) -> int:
        """The bytes that a ring counts."""
        return len(self._rendered())

    def text(self, form: MessageForm) -> bytes:
        """Return the message in a form, as everybody may see it."""
        found = self._texts.get(form)
        if found is None:
            found = form(self.message(self._rendered()))
            if self._is_shared:
                self._texts[form] = found
        return found

    def _rendered(self) -> bytes:
        """Return the JSON of the message."""
        data = self._data
        if data is None:
            data = self._render()
            if self._is_shared:
                self._data = data
        return data

    def message(self, data: bytes) -> BrowserMessage:
        """Return the message with other data."""
        return BrowserMessage(self.event, self.token, data)

    def _render(self) -> bytes:
        raise NotImplementedError


class ChangeEntry(SourceEntry):
    """A change of a stream."""

    event = CHANGE

    def __init__(self, event: ChangeEvent) -> None:
        super().__init__(event.resume_token)
        self._event = event  # nobody reads its documents: each reading takes a twin

    def twin(self) -> ChangeEvent:
        """Return the event for one reader, who may change what it holds."""
        return twin_of(self._event)

    def _render(self) -> bytes:
        return event_json(self.twin())


def event_json(event: ChangeEvent) -> bytes:
    """Return the JSON of an event. If its document can't be read, the browser passes it, and can tell."""
    try:
        return event.to_json()
    except UnreadableDocument as exc:
        return orjson.dumps(
            {
                "event_type": str(event.event_type),
                "collection": event.collection,
                "document_id": event.document_id,
                "resume_token": str(event.resume_token),
                "error": type(exc).__name__,
            }
        )


class DocumentsEntry(SourceEntry):
    """All documents of a live query at one place."""

    event = DOCUMENTS

    def __init__(self, documents: Sequence[Document], place: ResumeToken) -> None:
        super().__init__(place)
        self.documents = documents

    def _render(self) -> bytes:
        return json_array([document_json(each) for each in self.documents])


class ChangesEntry(SourceEntry):
    """The changes of a live query from one place to the next.

    Attributes:
        since: the last token at which the list before these changes held.
    """

    event = CHANGES

    def __init__(self, changes: Sequence[LiveChange[Any]], since: ResumeToken, place: ResumeToken) -> None:
        super().__init__(place)
        self.changes = changes
        self.since = since

    def _render(self) -> bytes:
        shapes = [
            change_json(each.kind, document_json(each.document), each.old_index, each.new_index)
            for each in self.changes
        ]
        return json_array(shapes)


class ValueEntry(SourceEntry):
    """The value of a live count, sum or average at one place, or those of its groups.

    Attributes:
        shown: `{"value": ...}`, or `{"groups": [{"group": ..., "value": ...}, ...]}`.
    """

    event = VALUE

    def __init__(self, shown: dict[str, Any], place: ResumeToken) -> None:
        super().__init__(place)
        self.shown = shown

    def _render(self) -> bytes:
        return encode_json(self.shown)


def document_json(document: Document) -> bytes:
    """Return the JSON of a document: its id, data, version and times."""
    try:
        return orjson.dumps(document_shape(document))
    except (UnreadableDocument, InvalidDocument) as exc:
        return encode_json({"id": document.id, "error": type(exc).__name__})


def value_json(value: Any) -> bytes | None:
    """Return the JSON of what a view has made; `None` if it has a document that can't be read."""
    try:
        return encode_json(value)
    except InvalidDocument as exc:
        if isinstance(exc.__cause__, UnreadableDocument):
            return None
        raise


def change_json(kind: str, document: bytes, old_index: int | None, new_index: int | None) -> bytes:
    """Return the JSON of a change of a live query."""
    shape = {"kind": kind, "document": orjson.Fragment(document), "old_index": old_index, "new_index": new_index}
    return orjson.dumps(shape)


def json_array(items: Sequence[bytes]) -> bytes:
    """Return an array of JSON texts."""
    return b"[%b]" % b",".join(items)
