"""The JSON of values in events: as pgdoc stores them, or as a table can have them."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from pgdoc.errors import InvalidDocument
from pgdoc.model import json_codec

__all__ = ["encode_json", "json_of_decoded", "json_value"]


def encode_json(value: Any) -> bytes:
    """Return the JSON of a value, also of one that no document has."""
    try:
        return json_codec.encode_value(value, "")
    except InvalidDocument:
        return _encode_odd(value).encode()


def _encode_odd(value: Any) -> str:
    """Encode a value with text that no document has, but a table's column of type json: NUL or a lone surrogate."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(key)}:{_encode_odd(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_encode_odd, value))}]"
    return json_codec.encode_value(value, "").decode()


def json_value(value: Any) -> orjson.Fragment:
    """Return what orjson writes for a value."""
    return orjson.Fragment(encode_json(value))


def json_of_decoded(values: dict[str, Any]) -> Any:
    """Return what orjson writes: values as they are if it writes all of them as pgdoc does, which saves a call."""
    return values if _WRITTEN_BY_ORJSON.issuperset(map(type, values.values())) else json_value(values)


_WRITTEN_BY_ORJSON: Final = frozenset((str, int, bool, type(None)))
"""It raises a TypeError for what it can't write: an integer of more than 64 bits, a lone surrogate."""
