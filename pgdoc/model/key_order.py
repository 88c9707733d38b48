"""The order of the keys of a table's rows, as the server sorts them for a snapshot.

A change is delivered if a snapshot has passed its row, and left to a later part if not, so keys are compared here, too.
The catalog's function `pgdoc.type_order` tells how.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson

from pgdoc.errors import HistoryLost

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
        """Return the texts of the key's columns.

        Raises:
            HistoryLost: the id is of a key that the table had before.
        """
        return self._read(document_id)[0]

    def place(self, document_id: str) -> Any:
        """Return what the id compares by.

        Raises:
            HistoryLost: the id is of a key that the table had before.
        """
        return self._read(document_id)[1]

    def _read(self, document_id: str) -> tuple[list[str], Any]:
        places = self._places
        try:
            if len(places) == 1:
                return [document_id], places[0](document_id)
            texts = orjson.loads(document_id)
            return texts, tuple(place(text) for place, text in zip(places, texts, strict=True))
        except (ValueError, TypeError, ArithmeticError) as exc:
            raise HistoryLost(
                f"the primary key of a table has changed during its snapshot, and {document_id!r} is an id of the "
                "former one: open the stream without the token, to begin the snapshot again"
            ) from exc


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
