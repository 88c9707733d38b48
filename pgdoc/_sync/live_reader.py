# Written by .ci/twins.py from pgdoc/_async/live_reader.py: change that file, and run it.
"""Reads rows for live queries, with what tells at which place in the WAL they are the table."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgdoc._sync.table import Table
from pgdoc.changes.snapshot import PgSnapshot, SnapshotChunk
from pgdoc.changes.snapshot_event import texts_of_row
from pgdoc.crud.statements import placed_statement
from pgdoc.crud.totals import totals_statement
from pgdoc.decoding.registry_rows import table_shape_of
from pgdoc.errors import CollectionNotFound
from pgdoc.live.aggregates import Totals
from pgdoc.live.images import RowImage
from pgdoc.live.order import DocumentOrder, FirstImages
from pgdoc.live.shared import LiveRows
from pgdoc.model.key_order import KeyOrder
from pgdoc.model.stored_rows import rows_by_key
from pgdoc.model.table_names import is_table_name, titled
from pgdoc.model.table_row import TableRow
from pgdoc.query.indexes.plan import NO_INDEXES
from pgdoc.replication.checks import hidden_documents
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.primitives import call

if TYPE_CHECKING:
    from collections.abc import Generator, Callable, Iterable, Iterator

    from pgdoc._sync.session import Session
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.crud.find_query import Search
    from pgdoc.crud.guard import GuardedQuery
    from pgdoc.live.aggregates import Aggregate
    from pgdoc.live.shared import RowEvent
    from pgdoc.query.filters.nodes import Path

__all__ = ["LiveReader", "prepared"]

_READ_LIMIT_S: Final = 600.0
_FEW: Final = 1_000
"""As many documents are fetched at once; more are streamed, in bounded memory."""

_PART_ROWS: Final = 10_000
_PART_BYTES: Final = 8 << 20
_COLUMNS: Final = 5  # of a find


class PlacedRows(NamedTuple):
    """What a statement returned.

    Attributes:
        seen: the transactions that it saw.
        end_lsn, timeline: where the WAL ended then.
    """

    rows: list[tuple[Any, ...]]
    seen: PgSnapshot
    end_lsn: int
    timeline: int

    def of(self, rows: Iterable[Any], *, is_all: bool) -> LiveRows:
        """Return what a state loads, with these rows."""
        sees = self.seen.sees
        return LiveRows(rows, is_all, sees, lambda change: sees(change.xid), self.end_lsn, self.timeline)


class LiveReader:
    """Reads from one collection or table; any thread or task may use it.

    Attributes:
        name: that of the collection or table.
        subject: what messages call it.
    """

    def __init__(self, backend: StreamBackend, session: Session, name: str) -> None:
        self._backend, self.name = backend, name
        schema = backend.hub.source.schema
        self.subject = titled(name, schema)
        self._table = None if is_table_name(name) else Table(session, schema, name, auto_create=True)
        self._decode = session.codec.decode

    def documents(self, search: Search, passes: Callable[[RowImage], bool]) -> LiveRows | None:
        """Return the documents that a search finds; `None` if the collection does not exist.

        Of a table, those are the first rows that pass.
        """
        with deadline_scope(_READ_LIMIT_S):
            if self._table is None:
                return self._rows_of_table(search, passes)
            query, params, _ = self._table.search_statement("find", search)
            limit = search.limit
            found = self.placed(
                query, [*params, *search.last_param(limit)], _COLUMNS, is_large=limit is None or limit > _FEW
            )
        if found is None:
            return None
        images = (RowImage(self._table.document(*row)) for row in found.rows)
        return found.of(images, is_all=limit is None or len(found.rows) < limit)

    def totals(self, search: Search, path: Path | None, by: Path | None, aggregate: Aggregate) -> LiveRows | None:
        """Return the totals of the documents that a search finds, by group; `None` if there is no such collection."""
        if self._table is None:
            return prepared(self.documents(search, aggregate.counts), aggregate.totals_of)
        indexes = self._table.indexes() if search.may_use_index else NO_INDEXES
        query, params = totals_statement(search, self._table.name, indexes, path, by)
        with deadline_scope(_READ_LIMIT_S):
            placed = self.placed(query, params, len(Totals._fields))
        if placed is None:
            return None
        return placed.of([Totals(*row) for row in placed.rows], is_all=True)

    def placed(
        self, query: GuardedQuery, params: list[Any], columns: int, *, is_large: bool = False
    ) -> PlacedRows | None:
        """Return the rows of a statement on the collection, and their place; `None` if there is no such collection."""
        assert self._table is not None  # noqa: S101 (of a collection)
        query, rows = placed_statement(query, columns), []
        try:
            if is_large:
                with closing(self._table.stream(query, params)) as chunks:
                    rows = [row for chunk in chunks for row in chunk]
            else:
                rows = self._table.read(query, params, prepare=False)
        except CollectionNotFound:
            return None
        if not rows:
            return None
        hides_rows, text, end, timeline = rows[0][:4]
        if hides_rows:
            raise hidden_documents(self.subject)
        return PlacedRows([row[4:] for row in rows[1:]], PgSnapshot.parse(text), end, timeline)

    def _rows_of_table(self, search: Search, passes: Callable[[RowImage], bool]) -> LiveRows | None:
        """Read a table, in parts; each sees the transactions of a moment of its own."""
        first = FirstImages(DocumentOrder(search.keys), search.limit)
        parts: list[SnapshotChunk] = []
        with closing(self._parts()) as found:
            for part in found:
                call(first.add, filter(passes, map(RowImage, _documents_of(part, self._decode))))
                part.documents.clear()
                parts.append(part)
        if not parts:
            return None
        seen = parts[0].seen  # the parts after it saw no less
        ((timeline,),) = self._backend.fetch("timeline")
        return LiveRows(first.images, first.is_all, seen.sees, _by_part(parts), parts[-1].end_lsn, timeline)

    def _parts(self) -> Generator[SnapshotChunk]:
        key: list[str] | None = None
        after = ""
        while True:
            rows = self._backend.read_watched(self.name, key, _PART_ROWS, _PART_BYTES, limit_s=_READ_LIMIT_S)
            if not rows:
                return
            ((hides_rows, text, end, read_at, names, kinds, document, columns, found, ids, texts),) = rows
            if hides_rows:
                raise hidden_documents(self.subject)
            documents = rows_by_key(ids, texts, is_composite=len(names) > 1)
            last = next(reversed(documents), None) if len(documents) < found or found == _PART_ROWS else None
            order, shape = KeyOrder(kinds), table_shape_of(names, document, columns)
            seen = PgSnapshot.parse(text)
            yield SnapshotChunk(self.name, after, documents, last, seen, end, read_at, order, shape)
            if last is None:
                return
            key, after = order.texts(last), last


def prepared(rows: LiveRows | None, prepare: Callable[[Iterable[RowImage]], Any]) -> LiveRows | None:
    """Return the rows as a state loads them. A thread prepares them: for many that takes seconds."""
    return None if rows is None else rows._replace(rows=call(prepare, rows.rows))


def _documents_of(part: SnapshotChunk, decode_text: Any) -> Iterator[TableRow]:
    assert part.shape is not None  # noqa: S101 (of a table)
    for key, row in part.documents.items():
        data, columns = texts_of_row(row, part.shape)
        yield TableRow.of(key, data, part.collection, decode_text, columns)


def _by_part(parts: list[SnapshotChunk]) -> Callable[[RowEvent], bool | None]:
    """Return whether the part that covers a row saw its change, or all parts a truncation."""

    def sees(change: RowEvent) -> bool | None:
        image = change.after or change.before
        if image is not None:
            return next(each for each in parts if each.covers(image.id)).seen.sees(change.xid)
        seen = {part.seen.sees(change.xid) for part in parts}
        return None if len(seen) > 1 else seen.pop()

    return sees
