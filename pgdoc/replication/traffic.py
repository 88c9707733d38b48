"""What the readers of this process have received, and how often they connected again, for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.database.conninfo import database_of
from pgdoc.runtime.census import CENSUS, OTHER, LabelledValue, Labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.replication.source import Source

__all__ = ["Tally", "note_reconnect", "source_labels"]

_KINDS = {"pgdoch": "live", "pgdocr": "catch_up"}
"""The kinds of reader, by how the names of their slots begin; any other is a consumer's."""


class Tally:
    """What one reader has received: an entry of the census.

    Attributes:
        received_bytes: written by the thread of the reader.
    """

    __slots__ = ("_labels", "received_bytes")

    def __init__(self, source: Source, slot: str) -> None:
        self._labels = (*source_labels(source.conninfo, source.schema), _KINDS.get(slot.partition("_")[0], "consumer"))
        self.received_bytes = 0

    def counts(self) -> Iterable[LabelledValue]:
        """See `Entry`."""
        yield ("pgdoc_received_bytes_total", self._labels), self.received_bytes

    def gauges(self) -> Iterable[LabelledValue]:
        """See `Entry`."""
        return ()

    def goes_on_in_child(self) -> bool:
        """See `Entry`: a child has no reader of its parent."""
        return False


def note_reconnect(source: Source, kind: str) -> None:
    """Count that a reader of this kind has lost its connection."""
    CENSUS.add(("pgdoc_reconnects_total", (*source_labels(source.conninfo, source.schema), kind)))


def source_labels(conninfo: str, schema: str) -> Labels:
    """Return the labels of a store: its database and its schema."""
    return CENSUS.bounded("source", (database_of(conninfo), schema), (OTHER, OTHER))
