"""The types of `$type`: MongoDB's names and codes, and which of them a JSON value has."""

from __future__ import annotations

from typing import Any, Final

INTEGERS: Final = {"int": 2**31, "long": 2**63}
"""The types of integers and what each of them ends before; a negative one may reach it. Beyond is `decimal`."""

_NUMBERS: Final = ("int", "long", "double", "decimal")

_JSON: Final = {
    "double": 1,
    "string": 2,
    "object": 3,
    "array": 4,
    "bool": 8,
    "null": 10,
    "int": 16,
    "long": 18,
    "decimal": 19,
}

_FOREIGN: Final = {
    "binData": 5,
    "undefined": 6,
    "objectId": 7,
    "date": 9,
    "regex": 11,
    "dbPointer": 12,
    "javascript": 13,
    "symbol": 14,
    "javascriptWithScope": 15,
    "timestamp": 17,
    "minKey": -1,
    "maxKey": 127,
}
"""What no JSON value is."""

_KNOWN: Final[dict[str | float, tuple[str, ...]]] = {
    "number": _NUMBERS,
    **{key: (name,) for name, code in _JSON.items() for key in (name, code)},
    **{key: () for name, code in _FOREIGN.items() for key in (name, code)},
}

TYPE_NAMES: Final = ", ".join([*_JSON, "number"])


def types_of(wanted: Any) -> tuple[str, ...] | None:
    """Return the types of JSON values that a name or code of MongoDB stands for; `None` where it is none."""
    return _KNOWN.get(wanted) if isinstance(wanted, str | int | float) and not isinstance(wanted, bool) else None


def type_of(value: Any) -> str | None:
    """Name the type of a value; `None` for what is missing.

    Numbers go by how they are written, which is how drivers of MongoDB choose their type: with a fraction, be it zero,
    they are `double`.
    """
    if type(value) is int:
        end = value if value >= 0 else -value - 1
        return next((name for name, limit in INTEGERS.items() if end < limit), "decimal")
    return _NAMES.get(type(value).__name__)


_NAMES: Final = {
    "NoneType": "null",
    "float": "double",
    "Decimal": "double",
    "str": "string",
    "dict": "object",
    "list": "array",
    "bool": "bool",
}
