"""The order of the keys of a table's rows, as the server sorts them for a snapshot.

A change is delivered if a snapshot has passed its row, and left to a later part if not, so keys are compared here, too.
The catalog's function `pgdoc.type_order` tells how.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["KeyOrder"]


class KeyOrder:
    """Compares the ids of one table's rows.

    Args:
        kinds: how each column of the key compares.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        self._places = tuple(_PLACES[kind] for kind in kinds)

    def texts(self, document_id: str) -> list[str]:
        """Return the texts of the key's columns."""
        if len(self._places) == 1:
            return [document_id]
        texts: list[str] = orjson.loads(document_id)
        return texts

    def place(self, document_id: str) -> Any:
        """Return what the id compares by."""
        if len(self._places) == 1:
            return self._places[0](document_id)
        return tuple(place(text) for place, text in zip(self._places, orjson.loads(document_id), strict=True))


def _numeric(text: str) -> tuple[bool, Decimal]:
    is_nan = text == "NaN"  # greater than any other
    return is_nan, Decimal(0 if is_nan else text)


_YEAR: Final = re.compile(r"(\d+)-(.*?)( BC)?$", re.ASCII).match


def _time(text: str) -> tuple[float, str]:
    """A year has four digits or more; the rest has the same order as its text."""
    found = _YEAR(text)
    if found is None:
        return (float("-inf") if text.startswith("-") else float("inf")), ""
    year = int(found[1])
    return (1 - year if found[3] else year), found[2]


def _text(text: str) -> str:
    """Code points have the order of their UTF-8."""
    return text


_PLACES: Final[dict[str, Callable[[str], Any]]] = {
    "int": int,
    "numeric": _numeric,
    "time": _time,
    "text": _text,
    "printed": _text,
}
