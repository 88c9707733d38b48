"""Sizes of documents, as they are written on the command line."""

from __future__ import annotations

import re
from typing import Final

import typer

from pgdoc.model.sizes import MOST

__all__ = ["read_size"]

_UNITS: Final = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20}
_SIZE: Final = re.compile(r"(\d+)\s*([A-Za-z]*)")
_MOST_DIGITS: Final = 10


def read_size(text: str) -> int | None:
    """Parse a number of bytes such as `64MiB`; `none` is no limit."""
    if text.lower() == "none":
        return None
    found = _SIZE.fullmatch(text.strip())
    factor = None if found is None else _UNITS.get(found[2].upper())
    size = 0 if found is None or factor is None or len(found[1]) > _MOST_DIGITS else int(found[1]) * factor
    if not 1 <= size <= MOST:
        raise typer.BadParameter(
            f"{text!r} is not a size from 1 to {MOST:,} bytes: use bytes, or KiB or MiB as in 64MiB, or none for no "
            "limit",
            param_hint="'SIZE'",
        )
    return size
