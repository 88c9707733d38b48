"""How a command that runs until Ctrl-C ends at SIGTERM."""

import signal
import sys
from typing import Final, NoReturn

__all__ = ["exit_at_sigterm"]

_TERMINATED: Final = 128 + signal.SIGTERM


def exit_at_sigterm() -> None:
    """Have SIGTERM end the command as an exception does, so that its blocks are left."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(_number: int, _frame: object) -> NoReturn:
    sys.exit(_TERMINATED)
