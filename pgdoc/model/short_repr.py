"""A short, one-line `repr` of any value, for error messages."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["short_repr"]


class _ShortRepr(reprlib.Repr):
    """`reprlib` with longer limits, and with integers of over 4,300 digits, which Python refuses to print."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f"<an integer of {x.bit_length():,} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        return " ".join(super().repr_instance(x, level).split())


def short_repr(value: Any) -> str:
    """Return the value's `repr` in one line, shortened in the middle; a `repr` that raises is replaced."""
    return _short_repr.repr(value)


_short_repr = _ShortRepr()
