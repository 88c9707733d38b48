"""Time spans, as they are written on the command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer

__all__ = ["read_span"]

_SPAN: Final = re.compile(r"(\d{1,9})\s*(s|min|h|d|w)")
_UNITS: Final = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST: Final = timedelta(days=36_500)


def read_span(text: str) -> timedelta:
    """Parse a time span such as `7d`."""
    found = _SPAN.fullmatch(text.strip())
    span = None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})
    if span is None or span > _LONGEST:
        raise typer.BadParameter(f"{text!r} is not a time span: use a number with s, min, h, d or w, as in 7d")
    return span
