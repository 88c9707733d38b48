"""Documents: their ids, their data as JSON text, and `Document` itself.

Numbers are the reason that this is more than a call of orjson. PostgreSQL's `jsonb` keeps numbers as exact decimals
and prints them without an exponent; orjson writes integers of 64 bits only and reads longer ones as floats. So the
fast way is orjson with checks that run at C's speed, and only what a check stops takes the slow way, which is exact.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson

from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.shown import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_ID_BYTES",
    "Document",
    "check_id",
    "decode",
    "encode",
    "encode_value",
    "new_id",
]

MAX_DEPTH: Final = 254
"""How deep objects and arrays may nest in what is written: the limit of orjson, far within PostgreSQL's."""

MAX_DIGITS: Final = 4300
"""How many digits an integer may have: the limit of Python's own `int(text)`."""

MAX_ID_BYTES: Final = 1024

_MAX_SCALE: Final = 16383  # digits after the point that PostgreSQL's numeric holds

_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS

_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_DIGITS_AND_PLUS_ALIKE: Final = bytes.maketrans(b"123456789+", b"0000000000")
_MORE_THAN_64_BITS: Final = b"0" * 20
_LESS_THAN_64_BITS: Final = b"-" + b"0" * 19
_LARGE_FLOAT: Final = re.compile(rb"e(?<=\de)\+?\d+(?:[,\]}]|$)")


def encode(data: Mapping[str, Any]) -> bytes:
    """Write the data of a document as JSON text for a `jsonb` column.

    Numbers come back equal: integers of up to 4,300 digits, floats, and Decimals that no float is near to; every other
    Decimal is stored exactly, and reads as the nearest float.

    Raises:
        InvalidDocument: the data is no JSON object, has a top-level `_id`, or holds what PostgreSQL or JSON can't;
            `path` names the place.
    """
    if not isinstance(data, Mapping):
        raise InvalidDocument(f"data is of type {type(data).__name__}: give a dict, the fields of a JSON object")
    if "_id" in data:
        raise InvalidDocument('data has a field "_id": leave it out, the id is given beside the data', path="_id")
    return encode_value(data, "")


def encode_value(value: Any, path: str) -> bytes:
    """Write one JSON value, such as the operand of a filter; `path` is its place, for the error's message.

    Raises:
        InvalidDocument: as `encode`.
    """
    try:
        text = orjson.dumps(value, None, _OPTIONS)
        if _says(text, value):
            return text
    except (TypeError, RecursionError):
        pass
    try:
        return _write(value, (path,)).encode()
    except RecursionError as exc:
        raise _too_deep((path,)) from exc


def _says(text: bytes, value: Any) -> bool:
    """Whether the text means the value to PostgreSQL too.

    The comparison finds what orjson writes as something else (NaN, UUIDs, enumerations). A large float has to be
    written without exponent: `1e23` is not ten to the 23rd, but PostgreSQL would store that.
    """
    if b"\\u0000" in text:
        return False
    if b"0e0" in text.translate(_DIGITS_AND_PLUS_ALIKE) and _LARGE_FLOAT.search(text):
        return False
    return bool(orjson.loads(text) == value)


def _write(value: Any, trail: tuple[str, ...]) -> str:  # noqa: PLR0911 (one return for each kind of value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _write_string(value, trail)
    if isinstance(value, int):
        return _write_integer(value, trail)
    if isinstance(value, float):
        return _write_float(value, trail)
    if isinstance(value, Decimal):
        return _write_decimal(value, trail)
    if isinstance(value, Mapping | list | tuple):
        return _write_container(value, trail)
    raise _invalid(
        trail,
        f"{shown(value)} is of type {type(value).__name__}, which has no form in JSON: give text, a number or such",
    )


def _write_container(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], trail: tuple[str, ...]) -> str:
    if len(trail) > MAX_DEPTH:
        raise _too_deep(trail)
    if isinstance(value, Mapping):
        fields = [f"{_write_key(key, trail)}:{_write(item, (*trail, key))}" for key, item in value.items()]
        return "{" + ",".join(fields) + "}"
    return "[" + ",".join([_write(item, (*trail, str(index))) for index, item in enumerate(value)]) + "]"


def _write_key(key: Any, trail: tuple[str, ...]) -> str:
    if not isinstance(key, str):
        raise _invalid(trail, f"the key {shown(key)} is of type {type(key).__name__}, and JSON has text for keys only")
    return _write_string(key, (*trail, key))


def _write_string(value: str, trail: tuple[str, ...]) -> str:
    if "\0" in value:
        raise _invalid(trail, "the text has a NUL character, which PostgreSQL can't store")
    try:
        return orjson.dumps(str.__str__(value)).decode()
    except TypeError as exc:
        raise _invalid(trail, "the text has a lone surrogate, which is no character") from exc


def _write_integer(value: int, trail: tuple[str, ...]) -> str:
    try:
        text = int.__repr__(value)
    except ValueError:
        text = ""
    if not 0 < len(text.lstrip("-")) <= MAX_DIGITS:
        raise _invalid(trail, f"the integer has more than {MAX_DIGITS:,} digits")
    return text


def _write_float(value: float, trail: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        raise _invalid(trail, f"{shown(value)} has no form in JSON")
    text = float.__repr__(value)
    return f"{int(value)}.0" if "e+" in text else text


def _write_decimal(value: Decimal, trail: tuple[str, ...]) -> str:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise _invalid(trail, f"{shown(value)} has no form in JSON")
    if value.adjusted() >= MAX_DIGITS or exponent < -_MAX_SCALE:
        raise _invalid(
            trail, f"the Decimal has over {MAX_DIGITS:,} digits before the point, or {_MAX_SCALE:,} after it"
        )
    return format(value, "f")


def _too_deep(trail: tuple[str, ...]) -> InvalidDocument:
    return _invalid(trail, f"the value is nested deeper than {MAX_DEPTH} levels, or contains itself")


def _invalid(trail: tuple[str, ...], reason: str) -> InvalidDocument:
    path = ".".join(trail if trail[0] else trail[1:])
    return InvalidDocument(f"at {shown(path)}: {reason}" if path else reason, path=path or None)


def decode(text: bytes | str) -> Any:
    """Read JSON text as PostgreSQL prints `jsonb`.

    Integers are exact. A number with a fraction becomes the nearest float, or a Decimal where that would be infinite
    or zero.

    Raises:
        UnreadableDocument: an integer has more than 4,300 digits, or the text is nested too deep for Python.
    """
    raw = text.encode() if isinstance(text, str) else text
    digits = raw.translate(_DIGITS_ALIKE)
    if _MORE_THAN_64_BITS in digits or _LESS_THAN_64_BITS in digits:
        return _decode_exactly(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _decode_exactly(raw)


def _decode_exactly(raw: bytes) -> Any:
    try:
        return json.loads(raw, parse_float=_nearest)
    except RecursionError as exc:
        raise UnreadableDocument("the stored data is nested too deep for Python: change it with SQL") from exc
    except ValueError as exc:
        raise UnreadableDocument(f"the stored data can't be read in Python ({exc}): change it with SQL") from exc


def _nearest(text: str) -> float | Decimal:
    value = float(text)
    if math.isinf(value) or (value == 0 and text.strip("-0.")):
        return Decimal(text)
    return value


def check_id(document_id: Any) -> str:
    """Return the id, if it is one: non-empty text of at most 1,024 bytes without NUL.

    Raises:
        InvalidDocument: it is not one; `path` is `_id`.
    """
    if not isinstance(document_id, str):
        raise InvalidDocument(
            f"the id {shown(document_id)} is of type {type(document_id).__name__}: give text", path="_id"
        )
    if not document_id or "\0" in document_id:
        raise InvalidDocument(f"{shown(document_id)} is no id: give text that is not empty, without NUL", path="_id")
    try:
        size = len(document_id) if document_id.isascii() else len(document_id.encode())
    except UnicodeEncodeError as exc:
        raise InvalidDocument(
            f"the id {shown(document_id)} has a lone surrogate, which is no character", path="_id"
        ) from exc
    if size > MAX_ID_BYTES:
        raise InvalidDocument(
            f"the id {document_id[:40]!r}... has {size:,} bytes: {MAX_ID_BYTES:,} at most", path="_id"
        )
    return document_id if type(document_id) is str else str.__str__(document_id)


class _Clock:
    """Times in 4,096ths of a millisecond that only go up, whatever the system's clock does."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def tick(self) -> int:
        now = time.time_ns() * 4096 // 1_000_000
        with self._lock:
            self._last = max(now, self._last + 1)
            return self._last


_clock = _Clock()


def new_id() -> str:
    """Make an id: a UUIDv7 (RFC 9562, method 3) as text. Ids of one process sort in the order they were made."""
    milliseconds, fraction = divmod(_clock.tick(), 4096)
    rest = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    tail = f"{rest:016x}"
    head = f"{milliseconds:012x}"
    return f"{head[:8]}-{head[8:]}-7{fraction:03x}-{tail[:4]}-{tail[4:]}"


def _read_time(moment: datetime | str) -> datetime:
    try:
        return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise UnreadableDocument(
            f"the stored time {str(moment)!r} is outside what Python can hold: change it with SQL"
        ) from exc


class _Unread:
    """A field of a document that is read when it is first asked for; from then on the document itself has it.

    A descriptor and not `__getattr__`, which costs Python an AttributeError each time.
    """

    def __init__(self, name: str, read: Callable[[Any], Any]) -> None:
        self._name, self._kept, self._read = name, f"_{name}", read

    def __get__(self, document: Document | None, owner: type[Document]) -> Any:
        if document is None:
            raise AttributeError(self._name)  # the class has no default for it
        state = document.__dict__
        kept = state.get(self._kept)
        if kept is None:
            if self._name in state:  # another thread read it between the two looks
                return state[self._name]
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")
        try:
            value = state.setdefault(self._name, self._read(kept))
        except UnreadableDocument as exc:
            raise UnreadableDocument(f"document {document.id!r}: {exc}") from exc
        state.pop(self._kept, None)
        return value


@dataclass(frozen=True)
class Document:
    """A document as it was stored at one moment.

    Attributes:
        id: its id.
        data: the JSON object; yours to change, nothing else holds it.
        version: 1 on insert, one more with every change.
        created_at: when it was inserted; aware, UTC.
        updated_at: when it was last changed; aware, UTC.
    """

    id: str
    data: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_text(
        cls,
        id: str,  # noqa: A002 (the name of the field)
        data_text: bytes | str,
        version: int,
        created_at: datetime | str,
        updated_at: datetime | str,
    ) -> Document:
        """Make a document that reads its data and times on first access; times may be as PostgreSQL prints them."""
        document = object.__new__(cls)
        document.__dict__.update(
            id=id, version=version, _data=data_text, _created_at=created_at, _updated_at=updated_at
        )
        return document

    def __getitem__(self, key: str) -> Any:
        return self.data[key]


for _name, _read in (("data", decode), ("created_at", _read_time), ("updated_at", _read_time)):
    setattr(Document, _name, _Unread(_name, _read))


def data_text(document: Document) -> bytes | str:
    """Return a document's data as JSON: as the server wrote it, where nobody has read it yet.

    Raises:
        InvalidDocument: as `encode`.
    """
    text: bytes | str | None = document.__dict__.get("_data")
    return encode(document.data) if text is None else text
