"""Encodes and decodes the JSON text of documents, with exact numbers.

PostgreSQL's `jsonb` keeps numbers as exact decimals and prints them without an exponent, while orjson writes only
64-bit integers and reads longer ones as floats. So the fast path is orjson with checks that run in C, and only a value
that fails a check takes the slow, exact path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

import orjson

from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model.json_numbers import AS_WRITTEN, TO_COMPARABLE, TO_DECIMALS, TO_FLOATS, float_text
from pgdoc.model.raw_json import RawJson, object_text, plain_text
from pgdoc.model.short_repr import short_repr
from pgdoc.model.values import FORMS, NoForm, datetime_json, is_json_type, to_json_type

if TYPE_CHECKING:
    import json

    from pgdoc.model.values import DocumentData, Encoder

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "JsonDecoder",
    "decode",
    "decode_as_written",
    "decode_comparable",
    "decode_decimals",
    "decode_short",
    "encode",
    "encode_value",
    "may_be_rounded",
    "may_have_long_numbers",
]

JsonDecoder: TypeAlias = Callable[[bytes | str], Any]
"""Decodes JSON text as PostgreSQL prints `jsonb`: `decode`, or a function like it for numbers with a fraction."""

MAX_DEPTH: Final = 254
"""How deep objects and arrays may nest in a document: the limit of orjson, far below PostgreSQL's."""


MAX_DIGITS: Final = 4300
"""How many digits an integer may have: the limit of Python's `int(text)`."""


_MAX_SCALE: Final = 16383  # the most digits after the decimal point in PostgreSQL's numeric


_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")


_DIGITS_AND_PLUS_ALIKE: Final = bytes.maketrans(b"123456789+", b"0000000000")


_19_DIGITS: Final = b"0" * 19


_MORE_THAN_64_BITS: Final = b"0" * 20


_LESS_THAN_64_BITS: Final = b"-" + b"0" * 19


_LONG_NUMBERS: Final = (*(before + _MORE_THAN_64_BITS for before in (b" ", b"[", b".")), _LESS_THAN_64_BITS)


_DIGITS_AND_POINT_ALIKE: Final = bytes.maketrans(b"123456789.", b"0000000000")


_MORE_THAN_A_FLOAT_HOLDS: Final = b"0" * 17  # 16 digits and a point: any 15 digits differ from others as floats


_LARGE_FLOAT: Final = re.compile(rb"e(?<=\de)\+?\d+(?:[,\]}]|$)")


def encode(data: DocumentData, encoder: Encoder | None = None) -> bytes:
    """Encode the data of a document as JSON text for a `jsonb` column.

    Values that JSON does not have are converted as `pgdoc.model.values` says. Numbers are stored exactly.

    Raises:
        InvalidDocument: the data is not a JSON object, has a top-level `_id`, or contains a value that PostgreSQL or
            JSON has no form for.
    """
    if data.__class__ is RawJson and (text := object_text(data)) is not None:
        return text
    if not isinstance(data, Mapping):
        data = _object_of(data, encoder)
    if "_id" in data:
        raise InvalidDocument('data has a field "_id": remove it, and pass the id as an argument', path="_id")
    return encode_value(data, "", encoder)


def _object_of(data: Any, encoder: Encoder | None) -> Mapping[str, Any]:
    found = _convert(data, ("",), encoder)
    if isinstance(data, RawJson) and not isinstance(found, Mapping):
        raise InvalidDocument(
            f"data is the JSON text {short_repr(data.text)}, which is not an object: use the text of an object"
        )
    if not isinstance(found, Mapping):
        raise InvalidDocument(
            f"data has type {type(data).__name__}: use a dict with the fields of a JSON object, or an instance of a "
            "class with fields, such as a dataclass"
        )
    return found


def encode_value(value: Any, path: str, encoder: Encoder | None = None) -> bytes:
    """Encode one JSON value as `encode` does; error messages name its dotted `path`."""
    try:
        text = orjson.dumps(value, _converted if encoder is None else None, _OPTIONS)
        if _is_faithful(text, value, encoder):
            return text
    except (TypeError, RecursionError, NoForm):
        pass
    try:
        return _write(value, (path,), encoder).encode()
    except RecursionError as exc:
        raise _too_deep((path,)) from exc


def _is_faithful(text: bytes, value: Any, encoder: Encoder | None) -> bool:
    """Return whether PostgreSQL reads the text as the same value.

    Comparing detects what orjson writes as another value. A large float must be written without an exponent: the float
    `1e23` is not ten to the 23rd, which PostgreSQL would store.
    """
    if text.find(b"\\u0000") >= 0:  # `in` takes longer: see `decode`
        return False
    if text.translate(_DIGITS_AND_PLUS_ALIKE).find(b"0e0") >= 0 and _LARGE_FLOAT.search(text):
        return False
    if encoder is not None:
        return _is_plain(value)
    try:
        is_same = bool(orjson.loads(text) == value)
    except Exception:  # noqa: BLE001 (the comparison of a foreign class; or a Decimal beyond the range of a float)
        is_same = False
    return is_same or (_is_convertible(value) and _is_shallow(text))


def _is_shallow(text: bytes) -> bool:
    """Return whether the text is no deeper than orjson writes, whatever texts were put into it."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return True
    try:
        orjson.dumps(orjson.loads(text))
    except (TypeError, orjson.JSONDecodeError):
        return False
    return True


def _is_plain(value: Any) -> bool:
    """Return whether there is nothing in the value that an encoder is asked for."""
    kind = value.__class__
    if kind is dict or kind is list or kind is tuple:
        return all(map(_is_plain, value.values() if kind is dict else value))
    return is_json_type(value)


def _is_convertible(value: Any) -> bool:
    """Return whether orjson writes the value in pgdoc's form: it has no NaN, infinity or `orjson.Fragment`."""
    kind = value.__class__
    if kind in _WRITTEN_ALIKE:
        return True
    if kind is dict or kind is list or kind is tuple:
        for item in value.values() if kind is dict else value:
            if item.__class__ not in _WRITTEN_ALIKE and not _is_convertible(item):
                return False
        return True
    if kind is float:
        return math.isfinite(value)
    found = _converted(value)
    return found.__class__ is not kind and (found.__class__ is orjson.Fragment or _is_convertible(found))


def _converted(value: Any) -> Any:
    """Return a value that orjson does not know as one that it does."""
    if value.__class__ is datetime:
        return orjson.Fragment(datetime_json(value))
    if value.__class__ is RawJson and (text := plain_text(value)) is not None:
        return orjson.Fragment(text)
    form = FORMS.get(value.__class__)
    found = to_json_type(value, None) if form is None else form(value)
    if found.__class__ in _NATIVE:
        return found
    if isinstance(found, Decimal):
        return orjson.Fragment(_write_decimal(found, ("",)).encode())
    for kind, plain in _NATIVE.items():
        if isinstance(found, kind):
            return plain(found)
    if isinstance(found, Mapping):
        return dict(found)
    raise NoForm


_NATIVE: Final[dict[type, Callable[[Any], Any]]] = {
    dict: dict,
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    list: list,
    tuple: tuple,
}
"""The classes that orjson writes, and how to convert an instance of a subclass, which it does not."""

_WRITTEN_ALIKE: Final = frozenset((str, int, bool, type(None), datetime, date, time, timedelta, UUID, Decimal))


def _convert(value: Any, trail: tuple[str, ...], encoder: Encoder | None) -> Any:
    """Return the value that is stored for one that JSON does not have."""
    try:
        return to_json_type(value, encoder)
    except NoForm as exc:
        raise _invalid(trail, str(exc)) from exc.__cause__


def _write(value: Any, trail: tuple[str, ...], encoder: Encoder | None) -> str:  # noqa: PLR0911 (one return for each kind of value)
    if not is_json_type(value):
        value = _convert(value, trail, encoder)
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
        return _write_container(value, trail, encoder)
    raise _invalid(
        trail,
        f"{short_repr(value)} has type {type(value).__name__}, which JSON can't represent: convert it, for example to "
        "text, or give the store an encoder",
    )


def _write_container(
    value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], trail: tuple[str, ...], encoder: Encoder | None
) -> str:
    if len(trail) > MAX_DEPTH:
        raise _too_deep(trail)
    if isinstance(value, Mapping):
        fields = [f"{_write_key(key, trail)}:{_write(item, (*trail, key), encoder)}" for key, item in value.items()]
        return "{" + ",".join(fields) + "}"
    return "[" + ",".join([_write(item, (*trail, str(index)), encoder) for index, item in enumerate(value)]) + "]"


def _write_key(key: Any, trail: tuple[str, ...]) -> str:
    if not isinstance(key, str):
        raise _invalid(trail, f"the key {short_repr(key)} has type {type(key).__name__}: use a str, as JSON requires")
    return _write_string(key, (*trail, key))


def _write_string(value: str, trail: tuple[str, ...]) -> str:
    if "\0" in value:
        raise _invalid(trail, "the text contains a NUL character, which PostgreSQL can't store")
    try:
        return orjson.dumps(str.__str__(value)).decode()
    except TypeError as exc:
        raise _invalid(trail, "the text contains a lone surrogate, which PostgreSQL can't store") from exc


def _write_integer(value: int, trail: tuple[str, ...]) -> str:
    try:
        text = int.__repr__(value)
    except ValueError:
        text = ""
    if not 0 < len(text.lstrip("-")) <= MAX_DIGITS:
        raise _invalid(trail, f"the integer has more than {MAX_DIGITS:,} digits, the limit")
    return text


def _write_float(value: float, trail: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        raise _invalid(trail, f"JSON can't represent {short_repr(value)}: use None, or text")
    return float_text(value)


def _write_decimal(value: Decimal, trail: tuple[str, ...]) -> str:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise _invalid(trail, f"JSON can't represent {short_repr(value)}: use None, or text")
    if value.adjusted() >= MAX_DIGITS or exponent < -_MAX_SCALE:
        raise _invalid(
            trail,
            f"the Decimal has more than {MAX_DIGITS:,} digits before the decimal point, or {_MAX_SCALE:,} after it",
        )
    return Decimal.__format__(value, "f")


def _too_deep(trail: tuple[str, ...]) -> InvalidDocument:
    return _invalid(trail, f"the value is nested deeper than {MAX_DEPTH} levels, or contains itself")


def _invalid(trail: tuple[str, ...], reason: str) -> InvalidDocument:
    path = ".".join(trail if trail[0] else trail[1:])
    return InvalidDocument(f"at {short_repr(path)}: {reason}" if path else reason, path=path or None)


def decode(text: bytes | str) -> Any:
    """Decode JSON text as PostgreSQL prints `jsonb`.

    Integers are exact. A number with a fraction becomes the nearest float, or a Decimal if that float would be infinite
    or zero.

    Raises:
        UnreadableDocument: an integer has over 4,300 digits, or the text is nested too deeply for Python.
    """
    raw = text.encode() if isinstance(text, str) else text
    digits = raw.translate(_DIGITS_ALIKE)
    # `in` would first try its operand as an integer, which fails and takes longer than the search
    if digits.find(_19_DIGITS) >= 0 and (digits.find(_MORE_THAN_64_BITS) >= 0 or digits.find(_LESS_THAN_64_BITS) >= 0):
        return _decode_exactly(raw, TO_FLOATS)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _decode_exactly(raw, TO_FLOATS)


def decode_short(text: bytes | str) -> Any:
    """Decode a text as `decode` does, in half the time, if `may_have_long_numbers` has returned `False` for it."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _decode_exactly(text.encode() if isinstance(text, str) else text, TO_FLOATS)


def may_have_long_numbers(texts: bytes) -> bool:
    """Return whether one of many objects may have a number that orjson reads as another: one of 20 digits or more.

    To search all texts at once takes a fifth of the time of searching each. Among many strings, one is often a digest
    with as many digits, after a quote. Digits of a number in `jsonb` come after a space, a bracket, a point or a minus.
    """
    digits = texts.translate(_DIGITS_ALIKE)
    return any(digits.find(long) >= 0 for long in _LONG_NUMBERS)


def decode_decimals(text: bytes | str, decoder: json.JSONDecoder = TO_DECIMALS) -> Any:
    """Decode as `decode` does, but a number with a fraction as `decoder` does: to a Decimal of the same digits."""
    raw = text.encode() if isinstance(text, str) else text
    if b"." in raw or _HAS_EXPONENT(raw):  # as small floats that `encode` wrote, and numbers of watched tables
        return _decode_exactly(raw, decoder)
    return decode(raw)


_HAS_EXPONENT: Final = re.compile(rb"\d[eE]").search


def decode_comparable(text: bytes | str) -> Any:
    """Decode as `decode` does, but to a Decimal where a float would have another value.

    A float stands for the decimal that `encode` writes for it. So `pgdoc.query.compare` compares all numbers exactly.
    """
    raw = text.encode() if isinstance(text, str) else text
    if raw.translate(_DIGITS_AND_POINT_ALIKE).find(_MORE_THAN_A_FLOAT_HOLDS) >= 0:  # `in` takes longer: see `decode`
        return _decode_exactly(raw, TO_COMPARABLE)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _decode_exactly(raw, TO_COMPARABLE)


def may_be_rounded(text: bytes) -> bool:
    """Return whether a number may have more digits than a float holds."""
    return text.translate(_DIGITS_AND_POINT_ALIKE).find(_MORE_THAN_A_FLOAT_HOLDS) >= 0


def decode_as_written(text: str) -> Any:
    """Decode what `encode` wrote, so that encoding it again writes the same."""
    return _decode_exactly(text.encode(), AS_WRITTEN)


def _decode_exactly(raw: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(raw.decode())
    except RecursionError as exc:
        raise UnreadableDocument("the stored data is nested too deeply for Python: change it with SQL") from exc
    except ValueError as exc:
        raise UnreadableDocument(f"Python can't read the stored data ({exc}): change it with SQL") from exc
