"""JSON text of documents, both ways, with exact numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model.short_repr import short_repr

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "decode", "encode", "encode_value"]

MAX_DEPTH: Final = 254
"""How deep objects and arrays may nest in what is written: the limit of orjson, far within PostgreSQL's."""


MAX_DIGITS: Final = 4300
"""How many digits an integer may have: the limit of Python's own `int(text)`."""


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
        f"{short_repr(value)} is of type {type(value).__name__}, which JSON has no form for",
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
        raise _invalid(
            trail, f"the key {short_repr(key)} is of type {type(key).__name__}, and JSON has text for keys only"
        )
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
        raise _invalid(trail, f"{short_repr(value)} has no form in JSON")
    text = float.__repr__(value)
    return f"{int(value)}.0" if "e+" in text else text


def _write_decimal(value: Decimal, trail: tuple[str, ...]) -> str:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise _invalid(trail, f"{short_repr(value)} has no form in JSON")
    if value.adjusted() >= MAX_DIGITS or exponent < -_MAX_SCALE:
        raise _invalid(
            trail, f"the Decimal has over {MAX_DIGITS:,} digits before the point, or {_MAX_SCALE:,} after it"
        )
    return format(value, "f")


def _too_deep(trail: tuple[str, ...]) -> InvalidDocument:
    return _invalid(trail, f"the value is nested deeper than {MAX_DEPTH} levels, or contains itself")


def _invalid(trail: tuple[str, ...], reason: str) -> InvalidDocument:
    path = ".".join(trail if trail[0] else trail[1:])
    return InvalidDocument(f"at {short_repr(path)}: {reason}" if path else reason, path=path or None)


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
