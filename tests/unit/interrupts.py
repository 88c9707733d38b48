"""A KeyboardInterrupt at a chosen step of the code that is tested."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType


class Interrupt:
    """Raises a KeyboardInterrupt where CPython can: at the `step`-th call, or return from C code, of the block."""

    def __init__(self, step: int, within: str = "pgdoc.") -> None:
        self.step = step
        self.within = within  # where the names of the modules begin like this

    def __enter__(self) -> Self:
        sys.setprofile(self._count)
        return self

    def __exit__(self, exc_type: object, *_: object) -> bool:
        sys.setprofile(None)
        return exc_type is KeyboardInterrupt

    def _count(self, frame: FrameType, event: str, _arg: object) -> None:
        if event in ("call", "c_return") and frame.f_globals["__name__"].startswith(self.within):
            self.step -= 1
            if self.step == -1:
                raise KeyboardInterrupt
