"""Durations and sizes in the options of a URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pgdoc.errors import InvalidInput

if TYPE_CHECKING:
    from pgdoc.relay.targets import LogTarget

__all__ = ["number_of", "seconds_of", "size_option"]

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def seconds_of(target: LogTarget, option: str) -> float | None:
    """Return an option such as `500ms`, `30s`, `2m`, `12h` or `7d` in seconds; `None` if it is not given.

    Raises:
        InvalidInput: it is not a duration.
    """
    text = target.options.get(option)
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", text)
    if found is None:
        raise InvalidInput(f"{option}={text} in {target.shown} is not a duration: use for example 30s, 12h or 7d")
    return float(found[1]) * _SECONDS[found[2]]


def size_option(target: LogTarget, option: str) -> int | None:
    """Return an option such as `1000000`, `512k`, `64m` or `20g` in bytes; `None` if it is not given.

    Raises:
        InvalidInput: it is not a size.
    """
    text = target.options.get(option)
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+)([kmgt]?)b?", text.lower())
    if found is None:
        raise InvalidInput(f"{option}={text} in {target.shown} is not a size: use for example 512m or 20g")
    return int(found[1]) * _BYTES[found[2]]


def number_of(target: LogTarget, option: str, *, least: int, most: int) -> int | None:
    """Return an option that is a whole number; `None` if it is not given.

    Raises:
        InvalidInput: it is none, or out of range.
    """
    text = target.options.get(option)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise InvalidInput(f"{option}={text} in {target.shown} must be a whole number from {least} to {most:,}")
    return int(text)
