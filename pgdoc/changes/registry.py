"""Which tables are collections or are watched, at each LSN.

The catalog's table `registry` has a span of LSNs for each name that a collection has or had, and for each name and
shape of a watched table. A row belongs to the one whose span contains the row's own LSN: locks order a row and the DDL
of its table, while commits can come in another order. So spans that are read ahead of the WAL give the same answer as
those that arrive in it.

wal2json names a row's table, pgoutput sends its oid; spans are found by either. A collection that is partitioned is
found by each of its partitions, too: both plugins send a row as one of its partition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.changes.table_rows import TableRows
from pgdoc.decoding.wal2json import columns_losing_nan
from pgdoc.errors import PgdocError
from pgdoc.model.table_names import is_table_name
from pgdoc.model.topics import is_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.decoding.records import Span


class TableAdded(PgdocError):  # noqa: N818 (no fault: the reader opens another session)
    """A table is watched that the present session through wal2json can't read; the WAL is to be read again.

    Attributes:
        needs_pgoutput: whether the reason is that wal2json loses values of it; else it was not asked for the table.
    """

    resumable = True

    def __init__(self, message: str, *, needs_pgoutput: bool = False) -> None:
        super().__init__(message)
        self.needs_pgoutput = needs_pgoutput


class Registry:
    """The spans of one schema; used by the thread that reads the WAL.

    Args:
        messages_until: below this LSN the registry did not exist yet, and columns tell a collection.
        look_again: reads the spans again, and returns whether there may be more that are not visible yet. `None` if
            the given ones are all that were recorded before the reader's start.

    Attributes:
        open: by oid and by name, the LSN from which a present collection has its name, and the name.
        parts: by oid and by name of each partition of a present collection, the same as in `open`.
        watched: the reader of the rows of each table that is watched now, by oid and by name.
        asked: the watched tables that the plugin was asked for; `None` if it sends every table.
        may_change_plugin: whether another session can read a table of which wal2json loses values.
    """

    def __init__(
        self,
        schema: str,
        spans: Iterable[Span] = (),
        *,
        messages_until: int = 0,
        look_again: Callable[[], tuple[list[Span], bool]] | None = None,
    ) -> None:
        self.schema = schema
        self.messages_until = messages_until
        self.open: dict[int | str, tuple[int, str]] = {}
        self.parts: dict[int | str, tuple[int, str]] = {}
        self.watched: dict[int | str, TableRows] = {}
        self._spans: dict[int | str, dict[tuple[int, int], Span]] = {}
        self._latest: dict[int | str, tuple[int, int]] = {}  # the keys of the open spans
        self._look_again = look_again
        self._looked_up: set[int | str] = set()
        self.asked: frozenset[str] | None = None
        self.may_change_plugin = False
        for span in spans:
            self.add(span)

    def add(self, span: Span) -> None:
        """Take note of a span, or that a known one has ended; ignore one of another schema.

        Ignored, too, is a table whose name is that of a topic: it could be taken for messages, and its owner for a role
        that may publish.

        Raises:
            TableAdded: the present session can't read this table.
        """
        if (span.shape is None and span.schema != self.schema) or is_topic(span.label):
            return
        key = (span.oid, span.since)
        if key not in self._spans.get(span.oid, {}):  # what was known when the session began does not change it
            self._check_session(span)
        of_parts = frozenset(source for part in span.partitions for source in part)
        for source in (span.oid, span.name_in(self.schema), *of_parts):
            spans = self._spans.setdefault(source, {})
            known = spans.get(key)
            if known is not None and known.until is not None:
                continue
            spans[key] = span
            latest = self._latest.get(source)
            if span.until is not None:
                if latest == key:
                    self._close(source)
            elif latest is None or latest[1] <= span.since:
                self._close(source)
                self._latest[source] = key
                if span.shape is not None:
                    self.watched[source] = TableRows(span)
                else:
                    present = self.parts if source in of_parts else self.open
                    present[source] = max(span.since, self.messages_until), span.name

    def _close(self, source: int | str) -> None:
        self.open.pop(source, None)
        self.parts.pop(source, None)
        self.watched.pop(source, None)
        self._latest.pop(source, None)

    def _check_session(self, span: Span) -> None:
        if span.shape is None or span.until is not None or self.asked is None:
            return
        if span.label not in self.asked:
            raise TableAdded(f'table "{span.label}" is watched now, and the plugin was not asked for it')
        if self.may_change_plugin and columns_losing_nan(span.shape):
            raise TableAdded(f'wal2json sends NaN of table "{span.label}" as NULL', needs_pgoutput=True)

    @property
    def names(self) -> frozenset[str]:
        """The names that collections and watched tables have or had, as events have them."""
        return frozenset(span.label for spans in self._spans.values() for span in spans.values())

    def with_partitions(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names with those of the partitions that such collections have or had."""
        wanted = frozenset(names)
        spans = [span for found in self._spans.values() for span in found.values() if span.label in wanted]
        return wanted.union(part for span in spans for _, part in span.partitions)

    @property
    def needs_pgoutput(self) -> bool:
        """Whether wal2json would lose values of a present table."""
        spans = [span for found in self._spans.values() for span in found.values() if span.until is None]
        return any(span.shape is not None and columns_losing_nan(span.shape) for span in spans)

    @property
    def tables(self) -> frozenset[str]:
        """The names that watched tables have or had.

        A name that was given up counts: its last rows can be in a transaction that commits long after that.
        """
        return frozenset(name for name in self.names if is_table_name(name))

    def span_at(self, source: int | str, lsn: int) -> Span | None:
        """Return the span of the collection or table that a row at `lsn` belongs to; `None` if it belongs to none.

        One look at a table is enough: nobody could write to it before its registration was visible.
        """
        found = self._find(source, lsn)
        if found is None and self._look_again is not None and source not in self._looked_up:
            self._looked_up.add(source)
            spans, is_incomplete = self._look_again()
            for span in spans:
                self.add(span)
            if not is_incomplete:
                self._look_again = None
            found = self._find(source, lsn)
        return found

    def _find(self, source: int | str, lsn: int) -> Span | None:
        for span in self._spans.get(source, {}).values():
            if span.since <= lsn and (span.until is None or lsn < span.until):
                return span
        return None
