"""SQL statements, stored as named blocks in the `.sql` files of this folder."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from pgdoc.sql.qualify import qualified

__all__ = ["statement"]

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def statement(file: str, name: str) -> str:
    """Return the block that follows `-- name: {name}` in `{file}.sql`, qualified and without its comments."""
    return _blocks(file)[name]


@cache
def _blocks(file: str) -> dict[str, str]:
    text = (files(__name__) / f"{file}.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: qualified(_without_comments(block)) for name, block in zip(parts[::2], parts[1::2], strict=True)}


def _without_comments(block: str) -> str:
    lines = (line.rstrip() for line in block.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))
