"""The events of a change stream: `ChangeEvent`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime  # noqa: TC003 (`typing.get_type_hints` looks it up)
from typing import TYPE_CHECKING, Any, Generic, Self, overload

from pgdoc.changes.diff import UpdateDescription
from pgdoc.changes.event_json import json_of, payload_text, plain_of
from pgdoc.changes.event_parsing import OF_JSON, state_of_json
from pgdoc.changes.event_type import EventType
from pgdoc.changes.row_event import OF_CHANGE
from pgdoc.changes.snapshot_event import OF_SNAPSHOT
from pgdoc.model import json_codec
from pgdoc.model.documents import Document, to_be_decoded_by
from pgdoc.model.tokens import ResumeToken  # noqa: TC001 (as `datetime`)
from pgdoc.model.type_variables import M_co, N
from pgdoc.model.typed.reader import reader_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeForm

    from pgdoc.changes.change import Change
    from pgdoc.changes.snapshot import DuePart
    from pgdoc.model.positions import Ids
    from pgdoc.model.stored_rows import StoredRow
    from pgdoc.model.tokens import SnapshotProgress

__all__ = ["ChangeEvent", "EventType", "UpdateDescription"]


@dataclass(frozen=True)
class ChangeEvent(Generic[M_co]):
    """A change of one document or of a whole collection.

    Fields are decoded on first access, in the thread that accesses them. If a stored document can't be decoded, that
    access raises `UnreadableDocument`; the event's id and token remain available.

    Attributes:
        event_type: what happened.
        collection: the name of the collection.
        document_id: the id of the document; `None` for a change of a whole collection.
        full_document: the document exactly as this change left it (insert, update, replace), or as the snapshot read it
            (snapshot); otherwise `None`.
        full_document_before_change: the document before this change (update, replace, delete); otherwise `None`.
        update_description: what changed (update); otherwise `None`, as for a table's document that is no object.
        resume_token: the position of this event; a stream with `resume_after` set to it continues with the next event.
        timestamp: when the transaction committed, at its origin if it was replicated, or when the snapshot read the
            document; timezone-aware, in UTC.
        transaction_id: PostgreSQL's transaction id (xid); 0 for a snapshot.
        metadata: the metadata that the writer attached (see `pgdoc.metadata`); `{}` if it attached none.
        renamed_to: the collection's new name (rename); otherwise `None`.
        columns: the other columns of the row, if it is of a table that was added with a `document`; the types of the
            columns `before` and `after` the change, by name (schema); otherwise `None`.
        topic: what the application published the event under (message); otherwise `None`. The `collection` of such an
            event is `topic:` and the topic, its `document_id` is the key.
        payload: what it published (message); otherwise `None`.
    """

    event_type: EventType
    collection: str
    document_id: str | None
    full_document: Document[M_co] | None
    full_document_before_change: Document[M_co] | None
    update_description: UpdateDescription | None
    resume_token: ResumeToken
    timestamp: datetime
    transaction_id: int
    metadata: dict[str, Any]
    renamed_to: str | None = None
    columns: dict[str, Any] | None = None
    topic: str | None = None
    payload: Any = None

    if TYPE_CHECKING:  # what `from_change` sets

        def __getattr__(self, name: str) -> Any: ...

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Return the event as a dict of JSON-compatible values. `where` filters apply to this form.

        Raises:
            UnreadableDocument: Python can't hold the stored data.
        """
        return plain_of(self)

    def to_json(self) -> bytes:
        """Return the event as JSON text with exact numbers.

        A document that was not accessed is copied as the server sent it, without decoding.

        Raises:
            UnreadableDocument: Python can't hold the stored data, or can't encode it again.
        """
        return json_of(self)

    @overload
    @classmethod
    def from_json(cls, text: bytes | str, *, decimals: bool = False, model: None = None) -> Self: ...
    @overload
    @classmethod
    def from_json(cls, text: bytes | str, *, decimals: bool = False, model: TypeForm[N]) -> ChangeEvent[N]: ...
    @classmethod
    def from_json(cls, text: bytes | str, *, decimals: bool = False, model: Any = None) -> ChangeEvent[Any]:
        """Return the event that `to_json()` wrote as this text.

        It equals that event in every field. Most fields are decoded on first access, as those of any event; if the text
        is damaged there, that raises `InvalidEvent`. `to_json()` of the result returns the text, unless you have
        accessed a document, the metadata or the description of the update.

        Args:
            text: what `to_json()` returned.
            decimals: whether numbers with a fraction are read as `Decimal`: what the store of the event was opened
                with.
            model: the model of the documents, as `store.collection` takes it.

        Raises:
            InvalidEvent: the text is not that of an event.
            InvalidInput: `model` is not a model.
            MissingExtra: the library that reads the model is not installed.
        """
        decode = json_codec.decode_decimals if decimals else None
        return from_json(text, decode if model is None else reader_of(model, decode), cls)


def from_json(
    text: bytes | str, decode_text: json_codec.JsonDecoder | None = None, kind: type[ChangeEvent[Any]] = ChangeEvent
) -> ChangeEvent[Any]:
    """Return the event that `to_json()` wrote as this text; `decode_text` decodes its data.

    Raises:
        InvalidEvent: the text is not that of an event.
    """
    event = object.__new__(kind)
    _set_state(event, state_of_json(text, _TYPES, decode_text))
    return event


_TYPES = {f'"{each}"'.encode(): each for each in EventType}


def from_change(
    change: Change,
    ids: Ids,
    progress: SnapshotProgress | None = None,
    decode_text: json_codec.JsonDecoder | None = None,
) -> ChangeEvent[Any]:
    """Make the event of a change; `ids` become a part of its token, and `decode_text` decodes its data.

    Inside a snapshot, `progress` is how far it had come.
    """
    event = object.__new__(ChangeEvent)
    state: dict[str, Any] = {"_change": change, "_ids": ids, "_progress": progress}
    if decode_text is not None:
        state["_decode"] = decode_text
    _set_state(event, state)  # half the time of changing the dict that Python makes
    return event


_set_state = ChangeEvent.__dict__["__dict__"].__set__


def change_of(event: ChangeEvent[Any]) -> Change:
    """Return the change that `from_change` made the event of."""
    change: Change = event._change  # noqa: SLF001 (this module's)
    return change


def twin_of(event: ChangeEvent[Any]) -> ChangeEvent[Any]:
    """Return the same event for reading its fields: `event.to_json()` is exact only while nobody has read them."""
    twin = object.__new__(ChangeEvent)
    _set_state(twin, event.__dict__.copy())
    return twin


def event_read_as(reader: Any, event: ChangeEvent[Any]) -> ChangeEvent[Any]:
    """Return the same event with documents of a model; nobody has read its fields."""
    twin = twin_of(event)
    twin.__dict__["_decode"] = reader
    return twin


def to_be_compared(event: ChangeEvent) -> ChangeEvent[Any]:
    """Return the event for filters to look at: its numbers are exact."""
    if event.full_document is None:
        text = payload_text(event)
        return event if text is None else replace(event, payload=json_codec.decode_comparable(text))
    return replace(event, full_document=to_be_decoded_by(json_codec.decode_comparable, event.full_document))


def from_snapshot(part: DuePart, number: int, document_id: str, row: StoredRow | Document) -> ChangeEvent[Any]:
    """Make the event of a document that a snapshot read: it is the document of this number, from 1, in the part."""
    event = object.__new__(ChangeEvent)
    # Up to five keys, with that of `full_document`, take half the time of more.
    state = {"event_type": _SNAPSHOT, "document_id": document_id, "_part": part, "_numbered_row": (number, row)}
    _set_state(event, state)
    return event


_SNAPSHOT = EventType.SNAPSHOT  # looking up a member takes as long as making an event


class _FromChange:
    """A field of an event that is computed on first access and then stored in it.

    It is computed from the event's change, from the row of a snapshot, or from the event's JSON.

    A descriptor, not `__getattr__`, which Python calls only after an AttributeError.
    """

    __slots__ = ("_compute", "_compute_of_json", "_compute_of_snapshot", "_name")

    def __init__(self, name: str, compute: Callable[[ChangeEvent], Any]) -> None:
        self._name, self._compute = name, compute
        self._compute_of_snapshot, self._compute_of_json = OF_SNAPSHOT.get(name), OF_JSON.get(name)

    def __get__(self, event: ChangeEvent | None, owner: type[ChangeEvent]) -> Any:
        if event is None:
            raise AttributeError(self._name)
        state = event.__dict__
        if "_change" in state:
            value = state[self._name] = self._compute(event)
            return value
        if "_part" in state and self._compute_of_snapshot is not None:
            value = state[self._name] = self._compute_of_snapshot(event)
            return value
        if "_texts" in state and self._compute_of_json is not None:
            value = state[self._name] = self._compute_of_json(event)
            return value
        raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")


for _name, _compute in OF_CHANGE.items():
    setattr(ChangeEvent, _name, _FromChange(_name, _compute))
