"""Reads the JSON of an event back: the inverse of `pgdoc.changes.event_json`.

An event is first cut into the texts of its fields, of which the small ones are read at once and the others on first
access, as those of any event. `_cut_usual` cuts the layout that `to_json` writes, with searches that run in C;
`_members` cuts any JSON object, at a tenth of the speed.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from pgdoc.changes.diff import UpdateDescription
from pgdoc.errors import InvalidEvent, InvalidResumeToken
from pgdoc.model import json_codec
from pgdoc.model.documents import Document, TypedDocument
from pgdoc.model.short_repr import short_repr
from pgdoc.model.stored_times import moment_of
from pgdoc.model.table_names import is_table_name
from pgdoc.model.table_row import TableRow
from pgdoc.model.tokens import ResumeToken
from pgdoc.model.typed.reader import ModelReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.changes.row_images import ReadEvent

__all__ = ["OF_JSON", "state_of_json"]

_Texts: TypeAlias = "Mapping[str, bytes]"
"""The JSON text of each field of an object, by name."""

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_HEAD: Final = re.compile(
    rb'\{"event_type":(%b),"collection":(%b),"document_id":(null|%b),'
    rb'"full_document":' % (_STRING, _STRING, _STRING),
    re.DOTALL,
)
_MIDDLE: Final = re.compile(
    rb'(%b),"timestamp":(%b),"transaction_id":([0-9]++),"metadata":' % (_STRING, _STRING),
    re.DOTALL,
)
_TAIL: Final = re.compile(
    rb'(null|%b)(?:,"topic":(%b),"payload":(.++)|,"columns":(.++))?+' % (_STRING, _STRING), re.DOTALL
)
_DOCUMENT_HEAD: Final = re.compile(rb'\{"id":(?P<id>%b),"data":' % _STRING, re.DOTALL)
_DOCUMENT_TAIL: Final = re.compile(
    rb',"version":(?P<version>[0-9]++),"created_at":(?P<created_at>%b),"updated_at":(?P<updated_at>%b)\}'
    % (_STRING, _STRING),
    re.DOTALL,
)
_BEFORE: Final = b',"full_document_before_change":'
_DESCRIPTION: Final = b',"update_description":'
_TOKEN: Final = b',"resume_token":'
_RENAMED: Final = b',"renamed_to":'
_SEPARATORS: Final = (_BEFORE, _DESCRIPTION, _TOKEN, _RENAMED)
_NEEDED: Final = (
    "event_type",
    "collection",
    "document_id",
    "full_document",
    "full_document_before_change",
    "update_description",
    "resume_token",
    "timestamp",
    "transaction_id",
    "metadata",
    "renamed_to",
)


def state_of_json(
    text: bytes | str, types: Mapping[bytes, Any], decode_text: json_codec.JsonDecoder | None
) -> dict[str, Any]:
    """Return what the `__dict__` of the event begins with. `types` has the types of events by their JSON.

    Raises:
        InvalidEvent: the text is not that of an event.
    """
    try:
        raw = (text.encode() if isinstance(text, str) else bytes(memoryview(text))).strip()  # bytes(9) makes nine bytes
    except (TypeError, UnicodeEncodeError) as exc:
        raise InvalidEvent(f"{short_repr(text)} is not the JSON of an event: use what event.to_json() returns") from exc
    texts = _cut_usual(raw) or _whole(raw)
    kind = types.get(texts["event_type"])
    state = {
        "event_type": _type_in(texts, types) if kind is None else kind,
        "collection": _known_text(texts["collection"]) or _text_in(texts, "collection"),
        "document_id": _text_or_none_in(texts, "document_id"),
        "transaction_id": _number_in(texts, "transaction_id"),
        "renamed_to": _text_or_none_in(texts, "renamed_to"),
        "_json": raw,
        "_texts": texts,
    }
    if decode_text is not None:
        is_row = isinstance(decode_text, ModelReader) and is_table_name(state["collection"])
        state["_decode"] = decode_text.untyped if is_row else decode_text  # type: ignore[attr-defined]
    return state


def _cut_usual(raw: bytes) -> dict[str, bytes] | None:
    """Cut the layout that `to_json` writes; return `None` for any other.

    A separator that the text has once is that of the event: inside a string, its quotes would be escaped. One that a
    document has, too, as an audit log's may, leaves the cutting to `_members`.
    """
    head = _HEAD.match(raw)
    if head is None or not raw.endswith(b"}"):
        return None
    places = []
    for separator in _SEPARATORS:
        at = raw.find(separator)
        if at < 0 or raw.find(separator, at + 1) >= 0:
            return None
        places.append(at)
    before, description, token, renamed = places
    middle = _MIDDLE.match(raw, token + len(_TOKEN))
    tail = _TAIL.fullmatch(raw, renamed + len(_RENAMED), len(raw) - 1)
    if middle is None or tail is None or not head.end() < before < description < token < middle.end() < renamed:
        return None
    event_type, collection, document_id = head.groups()
    resume_token, timestamp, transaction_id = middle.groups()
    renamed_to, topic, payload, columns = tail.groups()
    texts: dict[str, bytes] = {
        "event_type": event_type,
        "collection": collection,
        "document_id": document_id,
        "full_document": raw[head.end() : before],
        "full_document_before_change": raw[before + len(_BEFORE) : description],
        "update_description": raw[description + len(_DESCRIPTION) : token],
        "resume_token": resume_token,
        "timestamp": timestamp,
        "transaction_id": transaction_id,
        "metadata": raw[middle.end() : renamed],
        "renamed_to": renamed_to,
    }
    if columns is not None:
        texts["columns"] = columns
    if topic is not None:
        texts["topic"], texts["payload"] = topic, payload
    return texts


def _whole(raw: bytes) -> dict[str, bytes]:
    """Return the fields of an event in any layout."""
    texts = _members(raw)
    if missing := [name for name in _NEEDED if name not in texts]:
        raise InvalidEvent(f"the JSON of an event lacks {', '.join(missing)}: use what event.to_json() returns")
    return texts


_PIECE: Final = re.compile(rb'%b|[\[\]{},:]|[^\[\]{},:"]++|(?P<odd>.)' % _STRING, re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"


def _members(raw: bytes) -> dict[str, bytes]:
    """Return the text of each field of a JSON object, however it is laid out and however deep it is."""
    found: dict[str, bytes] = {}
    depth, start, key = 0, 1, b""
    for piece in _PIECE.finditer(raw):
        mark = raw[piece.start() : piece.start() + 1]
        if piece["odd"] is not None or (depth == 0 and (piece.start() or mark != b"{")):
            raise _damaged(raw)
        if mark in _OPENING:
            depth += 1
        elif depth == 1 and mark == b":":
            key, start = raw[start : piece.start()].strip(), piece.end()
        elif depth == 1 and mark in b",}":
            _add(found, key, raw[start : piece.start()].strip(), raw)
            key, start = b"", piece.end()
        if mark in _CLOSING:
            depth -= 1
    if depth or not raw:
        raise _damaged(raw)
    return found


def _add(found: dict[str, bytes], key: bytes, value: bytes, raw: bytes) -> None:
    if not key and not value and raw[1:-1].strip() == b"":  # {}
        return
    name = _load(key, raw)
    if not isinstance(name, str) or not value:
        raise _damaged(raw)
    found[name] = value


def _damaged(raw: bytes) -> InvalidEvent:
    shown = raw[:200].decode(errors="replace")
    return InvalidEvent(f"{short_repr(shown)} is not the JSON of an event: use what event.to_json() returns")


def _load(text: bytes, raw: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise _damaged(raw) from exc


def _wrong(name: str, text: bytes, wanted: str) -> InvalidEvent:
    shown = text[:200].decode(errors="replace")
    return InvalidEvent(f"the JSON of an event is damaged: its {name} is {shown}, not {wanted}", path=name)


def _text_in(texts: _Texts, name: str) -> str:
    text = texts[name]
    if text.find(b"\\") < 0 and text.startswith(b'"'):
        try:
            return text[1:-1].decode()  # in a fraction of the time
        except UnicodeDecodeError:
            raise _wrong(name, text, "UTF-8") from None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, str):
        raise _wrong(name, text, "a text")
    return found


@lru_cache(maxsize=256)
def _known_text(text: bytes) -> str | None:
    """Return the text of a JSON string that comes often, in a fraction of the time; `None` if it is none."""
    try:
        return _text_in({"": text}, "")
    except InvalidEvent:
        return None


def _type_in(texts: _Texts, types: Mapping[bytes, Any]) -> Any:
    name = _text_in(texts, "event_type")
    found = types.get(orjson.dumps(name))
    if found is None:
        raise InvalidEvent(f"{short_repr(name)} is not a type of event: the JSON is damaged, or a newer pgdoc wrote it")
    return found


def _text_or_none_in(texts: _Texts, name: str) -> str | None:
    return None if texts[name] == b"null" else _text_in(texts, name)


def _number_in(texts: _Texts, name: str) -> int:
    text = texts[name]
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise _wrong(name, text, "a number")
    return int(text)


_MOST_DIGITS: Final = 20


def _moment_in(texts: _Texts, name: str) -> datetime:
    text = _text_in(texts, name)
    try:
        if text.endswith("+00:00") or datetime.fromisoformat(text).tzinfo is not None:
            return moment_of(text)
    except (ValueError, OverflowError):
        pass
    raise _wrong(name, texts[name], "a time with its time zone")


def _token_in(event: ReadEvent) -> ResumeToken:
    try:
        return ResumeToken.parse(_text_in(event.__dict__["_texts"], "resume_token"))
    except InvalidResumeToken as exc:
        raise InvalidEvent(f"the JSON of an event is damaged: {exc}", path="resume_token") from exc


def _document_in(event: ReadEvent, name: str) -> Document | None:
    state = event.__dict__
    text: bytes = state["_texts"][name]
    if text == b"null":
        return None
    is_row = is_table_name(state["collection"])
    texts = _cut_document(text, is_row=is_row) or _members(text)
    needed = ("id", "data") if is_row else ("id", "data", "version", "created_at", "updated_at")
    if missing := [each for each in needed if each not in texts]:
        raise InvalidEvent(f"the JSON of an event is damaged: its {name} lacks {', '.join(missing)}", path=name)
    document_id, decode = _text_in(texts, "id"), state.get("_decode")
    if is_row:
        columns = state["_texts"].get("columns")
        return TableRow.of(document_id, texts["data"], state["collection"], decode, columns)
    kind = TypedDocument if decode.__class__ is ModelReader else Document
    return kind.from_text(
        document_id,
        texts["data"],
        _number_in(texts, "version"),
        _moment_in(texts, "created_at"),
        _moment_in(texts, "updated_at"),
        collection=state["collection"],
        decode_text=decode,
    )


def _cut_document(text: bytes, *, is_row: bool) -> dict[str, bytes] | None:
    """Cut the layout that `to_json` writes; return `None` for any other."""
    head = _DOCUMENT_HEAD.match(text)
    if head is None or not text.endswith(b"}"):
        return None
    if is_row:
        return {"id": head["id"], "data": text[head.end() : -1]}
    at = text.rfind(b',"version":')
    tail = _DOCUMENT_TAIL.fullmatch(text, at) if at > head.end() else None
    return None if tail is None else {"id": head["id"], "data": text[head.end() : at], **tail.groupdict()}


def _description_in(event: ReadEvent, decode: json_codec.JsonDecoder) -> UpdateDescription | None:
    text = event.__dict__["_texts"]["update_description"]
    found = decode(text)
    if found is None:
        return None
    try:
        return UpdateDescription(
            {**found["updated_fields"]},
            [*found["removed_fields"]],
            [(each["field"], each["new_size"]) for each in found["truncated_arrays"]],
            {**found["disambiguated_paths"]},
        )
    except (TypeError, KeyError) as exc:
        raise _wrong("update_description", text, "what event.to_json() writes") from exc


def _comparable(event: ReadEvent) -> json_codec.JsonDecoder:
    """Return what decodes the event's data: a table's `numeric` has all its digits."""
    state = event.__dict__
    default = json_codec.decode_comparable if is_table_name(state["collection"]) else json_codec.decode
    found: json_codec.JsonDecoder = state.get("_decode") or default
    return found


def _metadata(event: ReadEvent) -> dict[str, Any]:
    text = event.__dict__["_texts"]["metadata"]
    found = {} if text == b"{}" else (event.__dict__.get("_decode") or json_codec.decode)(text)
    if not isinstance(found, dict):
        raise _wrong("metadata", text, "an object")
    return found


def _payload(event: ReadEvent) -> Any:
    text = event.__dict__["_texts"].get("payload")
    return None if text is None else (event.__dict__.get("_decode") or json_codec.decode)(text)


def _columns(event: ReadEvent) -> dict[str, Any] | None:
    text = event.__dict__["_texts"].get("columns")
    found: dict[str, Any] | None = None if text is None else _comparable(event)(text)
    return found


OF_JSON: Final[dict[str, Callable[[ReadEvent], Any]]] = {
    "full_document": lambda event: _document_in(event, "full_document"),
    "full_document_before_change": lambda event: _document_in(event, "full_document_before_change"),
    "update_description": lambda event: _description_in(event, _comparable(event)),
    "resume_token": _token_in,
    "timestamp": lambda event: _moment_in(event.__dict__["_texts"], "timestamp"),
    "metadata": _metadata,
    "columns": _columns,
    "topic": lambda event: _text_in(texts, "topic") if "topic" in (texts := event.__dict__["_texts"]) else None,
    "payload": _payload,
}
"""The fields that an event reads from its JSON on first access."""
