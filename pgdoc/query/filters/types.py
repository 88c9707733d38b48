"""The types of `$type`: MongoDB's names and codes, and the type of a JSON value."""

from __future__ import annotations

from typing import Any, Final

INTEGER_LIMITS: Final = {"int": 2**31, "long": 2**63}
"""Each integer type with its exclusive upper limit; the negative limit is inclusive. Larger integers are `decimal`."""

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

_NOT_JSON: Final = {
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
"""Types of MongoDB that no JSON value has."""

_BY_NAME_OR_CODE: Final[dict[str | float, tuple[str, ...]]] = {
    "number": _NUMBERS,
    **{key: (name,) for name, code in _JSON.items() for key in (name, code)},
    **{key: () for name, code in _NOT_JSON.items() for key in (name, code)},
}

TYPE_NAMES: Final = ", ".join([*_JSON, "number"])


def types_of(wanted: Any) -> tuple[str, ...] | None:
    """Return the JSON types that MongoDB's type name or code stands for; `None` if it is neither."""
    return (
        _BY_NAME_OR_CODE.get(wanted) if isinstance(wanted, str | int | float) and not isinstance(wanted, bool) else None
    )


def type_of(value: Any) -> str | None:
    """Return the name of the value's type; `None` for `MISSING`.

    As in MongoDB's drivers, a number with a fraction, even `.0`, is a `double`.
    """
    if type(value) is int:
        end = value if value >= 0 else -value - 1
        return next((name for name, limit in INTEGER_LIMITS.items() if end < limit), "decimal")
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
