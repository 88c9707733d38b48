"""The figures of a stream for metrics: an entry of the census."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.replication.traffic import source_labels
from pgdoc.runtime.census import CENSUS, OTHER, Labels, Measured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.router import Selection
    from pgdoc.replication.source import Source
    from pgdoc.streams.delivery import Delivery

__all__ = ["StreamFigures"]

_MODES = ("live", "catching_up", "reconnecting", "snapshot", "standby")
_MOST_NAMES = 3
_LONGEST = 120


class StreamFigures:
    """What one stream counts; it outlives the stream until its counts are added up."""

    def __init__(self, source: Source, selection: Selection, consumer: str | None, delivery: Delivery) -> None:
        database, schema = source_labels(source.conninfo, source.schema)
        labels = (database, schema, _name_of(selection), consumer or "")
        self._labels = CENSUS.bounded("stream", labels, (database, schema, OTHER, ""))
        self._delivery = delivery

    def counts(self) -> Iterable[Measured]:
        """See `Entry`."""
        yield ("pgdoc_events_delivered_total", self._labels), self._delivery.delivered
        if self._delivery.error_class is not None:
            yield ("pgdoc_stream_errors_total", (*self._labels, self._delivery.error_class)), 1

    def gauges(self) -> Iterable[Measured]:
        """See `Entry`."""
        stats = self._delivery.stats()
        if stats.mode == "closed":
            return
        labels: Labels = self._labels
        yield ("pgdoc_stream_lag_bytes", labels), stats.lag_bytes
        yield ("pgdoc_stream_lag_seconds", labels), stats.lag.total_seconds()
        yield ("pgdoc_stream_buffered_events", labels), stats.buffered
        yield ("pgdoc_stream_buffered_bytes", labels), stats.buffered_bytes
        for mode in _MODES:
            yield ("pgdoc_stream_mode", (*labels, mode)), int(mode == stats.mode)

    def goes_on_in_child(self) -> bool:
        """See `Entry`: a child can't read a stream of its parent."""
        return False


def _name_of(selection: Selection) -> str:
    """Return what names a stream in metrics: what it is on, but not its filter, which may have an id.

    A thousand streams, each on one document of a collection, so have one name.
    """
    if selection.collections is None and not selection.topics:
        return "*.*" if selection.with_tables else "*"
    everything = ["*.*" if selection.with_tables else "*"] if selection.collections is None else selection.collections
    names = [*sorted(everything), *sorted(selection.topics)]
    rest = len(names) - _MOST_NAMES
    return ",".join(names[:_MOST_NAMES])[:_LONGEST] + (f",+{rest}" if rest > 0 else "")
