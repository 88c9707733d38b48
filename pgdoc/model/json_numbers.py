"""The numbers of JSON text: as floats, or as Decimals where a float would be another number."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any, Final

__all__ = [
    "AS_WRITTEN",
    "TO_COMPARABLE",
    "TO_DECIMALS",
    "TO_FLOATS",
    "TO_SAME_DIGITS",
    "comparable",
    "decimal_of",
    "float_text",
    "with_floats",
]


def float_text(value: float) -> str:
    """Return the JSON of a float, which must be finite: without an exponent if it is large."""
    text = float.__repr__(value)
    return f"{int(value)}.0" if "e+" in text else text


def _nearest(text: str) -> float | Decimal:
    value = float(text)
    if math.isinf(value) or (value == 0 and text.strip("-0.")):
        return Decimal(text)
    return value


def _comparable(text: str) -> float | Decimal:
    number = Decimal(text)
    if "e" in text and Decimal(repr(value := float(text))) == number:  # a float of a watched table
        return value
    return comparable(number)


def comparable(number: Decimal) -> float | Decimal:
    """Return the float that stands for exactly this number, or else the number."""
    value = float(number)
    return value if math.isfinite(value) and decimal_of(value) == number else number


def _as_written(text: str) -> float | Decimal:
    value, exact = float(text), Decimal(text)
    return value if math.isfinite(value) and decimal_of(value).as_tuple() == exact.as_tuple() else exact


def _float_of_same_digits(text: str) -> float | Decimal:
    value = float(text)
    return value if repr(value) == text else Decimal(text)


AS_WRITTEN: Final = json.JSONDecoder(parse_float=_as_written)
TO_FLOATS: Final = json.JSONDecoder(parse_float=_nearest)
TO_DECIMALS: Final = json.JSONDecoder(parse_float=Decimal)
TO_COMPARABLE: Final = json.JSONDecoder(parse_float=_comparable)
TO_SAME_DIGITS: Final = json.JSONDecoder(parse_float=_float_of_same_digits)


def decimal_of(value: float) -> Decimal:
    """Return the number that `encode` writes for a float, which must be finite."""
    return Decimal(float_text(value))


def with_floats(value: Any) -> Any:
    """Return decoded data with the numbers that `decode` returns; unchanged parts are shared."""
    if isinstance(value, Decimal):
        return _nearest(format(value, "f"))
    if isinstance(value, dict):
        fields = {key: with_floats(item) for key, item in value.items()}
        return fields if any(fields[key] is not value[key] for key in fields) else value
    if isinstance(value, list):
        items = [with_floats(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value
