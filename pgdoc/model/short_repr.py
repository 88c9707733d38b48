"""How what a user gave looks in a message: in one short line, whatever it is."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["short_repr"]


class _Shown(reprlib.Repr):
    """What `reprlib` does, with more room; and integers, which Python does not write beyond 4,300 digits."""

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
    """Return the value as `repr` has it, cut in its middle where it is long; a `repr` that fails does no harm."""
    return _shown.repr(value)


_shown = _Shown()
