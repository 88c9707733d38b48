"""The sort keys of values in Python: the texts that the catalog's functions `sort_key` and `sort_rest` return.

Their order by code point is the order of the values.
"""

from __future__ import annotations

from decimal import Decimal
from operator import itemgetter
from typing import Any, Final

from pgdoc.model.json_numbers import decimal_of

__all__ = ["LONGEST", "NULL_KEY", "key_of_value", "rest_of_value", "whole_key"]

LONGEST: Final = 80
"""The most characters of a key."""

NULL_KEY: Final = "1"
"""The key of null, and of a missing value."""

_MOST_LEVELS: Final = 260
"""The catalog computes no rest of a value that is nested deeper."""

_END_OF_TEXT: Final = "\x01\x01"


def key_of_value(value: Any) -> str:
    """Return the key of a value, which is cut to 80 characters."""
    if value.__class__ is str:
        return "3" + value[: LONGEST - 1]
    if value.__class__ is dict or value.__class__ is list:
        return _nested_key(value, LONGEST)[:LONGEST]
    return _scalar_key(value)[:LONGEST]


def rest_of_value(value: Any) -> str:
    """Return the whole key of a value whose key was cut; empty, which sorts before all rests, for all others."""
    if value.__class__ is dict or value.__class__ is list:
        whole = "" if _is_deeper(value, _MOST_LEVELS) else _nested_key(value, None)
    elif value.__class__ is str:
        return "3" + value if len(value) >= LONGEST else ""
    else:
        whole = _scalar_key(value)
    return whole if len(whole) > LONGEST else ""


def whole_key(value: Any) -> str:
    """Return the key of a value, however long it is.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    return _nested_key(value, None) if value.__class__ is dict or value.__class__ is list else _scalar_key(value)


def _scalar_key(value: Any) -> str:
    if value.__class__ is str:
        return "3" + value
    if value is None:
        return NULL_KEY
    if value.__class__ is bool:
        return "61" if value else "60"
    return _number_key(value)


def _nested_key(value: Any, longest: int | None) -> str:
    """Return the key of a part of a value; only its first `longest` characters are exact."""
    kind = value.__class__
    if kind is str:
        text: str = value if longest is None else value[:longest]
        return "3" + text.replace("\x01", "\x01\x02") + _END_OF_TEXT
    if kind is not dict and kind is not list:
        return _scalar_key(value)
    deeper = None if longest is None else longest - 1
    if deeper is not None and deeper < 0:
        return ""
    return _items_key(value, deeper) if kind is list else _fields_key(value, deeper)


def _items_key(items: list[Any], longest: int | None) -> str:
    parts, size = ["5"], 0
    for item in items if longest is None else items[: longest + 1]:
        part = _nested_key(item, longest)
        parts.append(part)
        size += len(part)
        if longest is not None and size > longest:
            break
    return "".join([*parts, "0"])


def _fields_key(fields: dict[str, Any], longest: int | None) -> str:
    parts = ["4"]
    for key, value in sorted(fields.items(), key=itemgetter(0))[: None if longest is None else longest + 1]:
        parts += (_RANKS[value.__class__], key.replace("\x01", "\x01\x02"), _END_OF_TEXT, _nested_key(value, longest))
    return "".join([*parts, "0"])


_RANKS: Final = {type(None): "1", int: "2", float: "2", Decimal: "2", str: "3", dict: "4", list: "5", bool: "6"}


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether a value is nested deeper, without recursion."""
    here = [value]
    for _ in range(levels):
        here = [
            item
            for each in here
            for item in (each.values() if each.__class__ is dict else each)
            if item.__class__ is dict or item.__class__ is list
        ]
        if not here:
            return False
    return True


_COMPLEMENT: Final = str.maketrans("0123456789abcdef", "fedcba9876543210")
_BIAS: Final = 0x8000
"""Added to the weight of a number's first digit, so that it has no sign."""


def _number_key(number: Any) -> str:
    """Return the key of a number: its sign, the weight of its first digit of base 10,000, and these digits."""
    if number.__class__ is int:
        if -10_000 < number < 10_000:
            return _short_key(int(number))
        digits, exponent = str(abs(number)), 0
        is_negative = number < 0
    else:
        exact = decimal_of(number) if number.__class__ is float else Decimal(number)
        parts: Any = exact.as_tuple()  # JSON has no NaN, so the exponent is a number
        is_negative, digits, exponent = parts.sign == 1, "".join(map(str, parts.digits)), parts.exponent
    digits = digits.lstrip("0")
    if not digits:
        return "21"
    return _signed_key(_size_of(digits, exponent), is_negative)


def _short_key(number: int) -> str:
    return "21" if number == 0 else _signed_key(f"{_BIAS:04x}{abs(number):04x}", number < 0)


def _signed_key(size: str, is_negative: bool) -> str:
    return f"20{size.translate(_COMPLEMENT)}~" if is_negative else f"22{size}!"


def _size_of(digits: str, exponent: int) -> str:
    """Return the weight and the digits to base 10,000 of a number without a sign, in hexadecimal."""
    digits += "0" * (exponent % 4)
    exponent -= exponent % 4
    digits = "0" * (-len(digits) % 4) + digits
    groups = [f"{int(digits[at : at + 4]):04x}" for at in range(0, len(digits), 4)]
    weight = len(groups) - 1 + exponent // 4
    while groups[-1] == "0000":
        groups.pop()
    # A number beyond PostgreSQL's range, which only a `json` column of a table can have, is kept at its end.
    return f"{min(max(weight + _BIAS, 0), 2 * _BIAS - 1):04x}{''.join(groups)}"
