"""SQL text with parameters, and the paths and constants in it.

The text is qualified as by `pgdoc.sql.qualify`: it means the same under every search_path.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.query.filters.nodes import Path

_UNSAFE: Final = re.compile(r"[^ -~]|['\\%]")


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL with psycopg's placeholders, and the parameters for them."""

    text: str
    params: list[Any]


def operator(symbol: str) -> str:
    """Return an operator of PostgreSQL as SQL that no operator in the search_path can replace.

    All operators that are written so bind equally strong.
    """
    return f"OPERATOR(pg_catalog.{symbol})"


EQUALS: Final = operator("=")


def join(separator: str, parts: Iterable[Compiled]) -> Compiled:
    """Join the parts, in brackets."""
    every = list(parts)
    return Compiled(
        "(" + separator.join(part.text for part in every) + ")", [item for part in every for item in part.params]
    )


def literal(text: str) -> str:
    """Write text as a constant; escape quotes, backslashes, percent signs, and all but printable ASCII."""
    return "E'" + _UNSAFE.sub(lambda found: f"\\U{ord(found[0]):08X}", text) + "'"


@lru_cache(maxsize=1024)
def jsonpath(path: Path) -> str:
    """Return the path as jsonpath, in which a part of digits is always a key."""
    return "$" + "".join(map(jsonpath_step, path))


def jsonpath_step(part: str) -> str:
    """Return one part of a `jsonpath`."""
    return "." + json.dumps(part)
