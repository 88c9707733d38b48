"""The operators on the bits of a number: `$bitsAllSet`, `$bitsAnySet`, `$bitsAllClear` and `$bitsAnyClear`.

They test integers of 64 bits in two's complement. A number beyond them, or with a fraction, never matches.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.types import INTEGER_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BIT_TESTS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "$bitsAllSet": lambda number, mask: number & mask == mask,
    "$bitsAnySet": lambda number, mask: number & mask != 0,
    "$bitsAllClear": lambda number, mask: number & mask == 0,
    "$bitsAnyClear": lambda number, mask: number & mask != mask,
}
"""Each operator with its test of a number and a mask of 64 bits, both signed."""

_SIGN: Final = 63
"""The position of the sign. All positions from here on have its bit, however large the number."""


def mask_of(value: Any) -> int:
    """Return the mask, as a signed integer of 64 bits, for a mask or a list of positions.

    Raises:
        ValueError: it is neither; the message says so.
    """
    if isinstance(value, list | tuple):
        positions = [_integer(item) for item in value]
        if any(position is None or not 0 <= position < INTEGER_LIMITS["int"] for position in positions):
            raise ValueError(f"needs positions from 0 to 2,147,483,647, got {short_repr(value)}")
        mask = 0
        for position in positions:
            mask |= 1 << min(position or 0, _SIGN)
        return mask - (1 << _SIGN + 1) if mask >> _SIGN else mask
    mask_given = _integer(value)
    if mask_given is None or not 0 <= mask_given < INTEGER_LIMITS["long"]:
        raise ValueError(
            f"needs a mask from 0 to 9,223,372,036,854,775,807, or a list of positions, got {short_repr(value)}"
        )
    return mask_given


def has_bits(value: Any, operator: str, mask: int) -> bool:
    """Whether a JSON value is an integer of 64 bits that passes the test."""
    number = _integer(value)
    return number is not None and BIT_TESTS[operator](number, mask)


def _integer(value: Any) -> int | None:
    """Return a number of 64 bits without a fraction, however it is written; else `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, Decimal) and not value.is_finite():  # comparing NaN raises an error
        return None
    # Before int(): converting a large Decimal can take a second.
    if not -INTEGER_LIMITS["long"] <= value < INTEGER_LIMITS["long"]:
        return None
    number = int(value)
    return number if number == value else None
