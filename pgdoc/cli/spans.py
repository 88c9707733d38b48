"""Time spans, as they are written on the command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer

__all__ = ["read_span"]

_SPAN: Final = re.compile(r"(\d{1,9})\s*(s|min|h|d|w)")
_UNITS_S: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_S: Final = 36_500 * 86_400


def read_span(text: str) -> timedelta:
    """Parse a time span such as `7d`."""
    found = _SPAN.fullmatch(text.strip())
    span_s = None if found is None else int(found[1]) * _UNITS_S[found[2]]
    if span_s is None or span_s > _LONGEST_S:
        raise typer.BadParameter(f"{text!r} is not a time span: use a number with s, min, h, d or w, as in 7d")
    return timedelta(seconds=span_s)
