"""`RawJson`: JSON text that is stored without decoding it and encoding it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson

__all__ = ["RawJson", "object_text", "plain_text", "value_of"]


@dataclass(frozen=True, slots=True)
class RawJson:
    """JSON text to be stored as it is: as the data of a document, or as a value in it.

    Its numbers keep all their digits. A call that stores the text checks it as it checks other values, and raises
    `InvalidDocument` if it is not JSON.

    Attributes:
        text: one JSON value, such as `event.to_json()`; bytes are UTF-8.
    """

    text: bytes | str


def plain_text(raw: RawJson) -> bytes | None:
    """Return the text if it can be stored as it is; `None` if its value, which `value_of` returns, has to be looked at.

    orjson refuses NaN, lone surrogates, and numbers beyond the range of a float.
    """
    text, value = _loaded(raw)
    return None if value is _UNCLEAR else text


def object_text(raw: RawJson) -> bytes | None:
    """Return the same for the data of a document: `None` also if it is not an object, or has a field `_id`."""
    text, value = _loaded(raw)
    return text if value.__class__ is dict and "_id" not in value else None


def value_of(raw: RawJson) -> Any:
    """Decode the text with exact numbers; raise `ValueError` or `RecursionError` if it is not JSON."""
    return _EXACT.decode(_bytes_of(raw).decode())


_EXACT: Final = json.JSONDecoder(parse_float=Decimal)
_UNCLEAR: Final = object()
_MOST_BRACKETS: Final = 254  # as many levels may be nested


def _bytes_of(raw: RawJson) -> bytes:
    text = raw.text
    if text.__class__ is bytes:
        return text
    return text.encode() if isinstance(text, str) else bytes(memoryview(text))  # bytes(5) would be five zero bytes


def _loaded(raw: RawJson) -> tuple[bytes, Any]:
    """Return the text and its value; `_UNCLEAR` for a value if a document may not have it.

    Not looked for is a number with more than 16,383 digits after the point, which the server refuses.
    """
    try:
        text = _bytes_of(raw)
    except (TypeError, ValueError):  # no text, or a lone surrogate: `value_of` raises it again
        return b"", _UNCLEAR
    has_nul = b"\\" in text and b"\\u0000" in text  # a search for one byte takes a quarter of the time
    if has_nul or text.count(b"[") + text.count(b"{") > _MOST_BRACKETS:
        return text, _UNCLEAR
    try:
        return text, orjson.loads(text)
    except orjson.JSONDecodeError:
        return text, _UNCLEAR
