"""From records to changes that have a position and know their transaction.

A position is `(commit LSN, LSN, kind, ordinal)` (`pgdoc.model.positions`). Rules:

1. Ordinals count the rows of one LSN as the server sends them: rows of one table, from one COPY. Only a TRUNCATE has
   several tables in one record, and each plugin sends those that its own filter lets pass. So a truncation's ordinal
   derives from the table's name alone, and orders the truncations. The partitions of a collection have its name, and
   are truncated together: they are one. No two messages of a transaction share an LSN, so a
   message's ordinal is 0.
2. A message can share its LSN with the row after it, and inside subtransactions the two come in either order. So the
   rows of one LSN are buffered until another LSN, or the commit.
3. Metadata applies to the changes after its message in the transaction. The last message wins.
4. A row belongs to a collection if the registry says so at the row's LSN, whatever columns its table has.
5. A row of the registry that opens or closes a name is a change of its own: a created, renamed or dropped collection.
   Two such rows share an LSN only if a COPY wrote them. Their ordinals are even, which leaves room for an `invalidate`.
6. Before the registry existed, messages reported what became of collections, and columns told one. Any SQL writer can
   send such a message: later ones are taken for metadata, which `events` ignores unless it is valid.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pgdoc.changes.change import Burst, Change, TransactionInfo
from pgdoc.changes.table_rows import rows_of_table
from pgdoc.decoding.catalog_messages import read_message
from pgdoc.decoding.records import (
    COLLECTION_COLUMNS,
    MESSAGE_KIND,
    Begin,
    CollectionChange,
    Commit,
    Idle,
    Message,
    Record,
    RegistryRow,
    RowChange,
)
from pgdoc.model.positions import MESSAGE, ROW
from pgdoc.model.topics import is_topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.registry import Registry


class Assembler:
    """Gives each change its position and its transaction.

    Args:
        watermark: every transaction that commits below it was delivered before.
        registry: knows the collections of the schema that is read.
    """

    def __init__(self, watermark: int, registry: Registry) -> None:
        self.watermark = watermark
        self._registry = registry
        self._begin: Begin | None = None
        self._transaction = TransactionInfo(0, "", None)
        self._held: list[Change] = []  # the rows of one LSN, which a message may follow: rule 2
        self._row_lsn = self._ordinal = 0  # of the last row; 0 once no row of its LSN may follow
        self._registry_lsn, self._registry_ordinal = 0, 0

    @property
    def open_transaction(self) -> Begin | None:
        """The transaction of which some changes were received, but not the commit."""
        return self._begin

    @property
    def _commit_lsn(self) -> int:
        """Of the open transaction; 0 outside of transactions."""
        return self._begin.commit_lsn if self._begin is not None else 0

    @property
    def registry(self) -> Registry:
        """What it was given."""
        return self._registry

    @property
    def names(self) -> frozenset[str]:
        """The names that collections of the schema have or had, as far as was read."""
        return self._registry.names

    def feed(self, records: Iterable[Record]) -> Burst:
        """Take the next records; return the changes whose positions are now final."""
        changes, self._held = self._held, []
        append, make, present, tables = changes.append, tuple.__new__, self._registry.open, self._registry.watched
        parts = self._registry.parts
        commit_lsn, transaction = self._commit_lsn, self._transaction
        row_lsn, ordinal = self._row_lsn, self._ordinal
        for record in records:
            if isinstance(record, RowChange):
                lsn, kind, table, message, complete, read, oid = record  # once: reading one attribute takes as long
                ordinal = ordinal + 1 if lsn == row_lsn else 0
                row_lsn = lsn
                source = oid or table
                since, name = present.get(source, _NEVER)
                if lsn >= since and name == table and kind != "T":
                    append(make(Change, ((commit_lsn, lsn, ROW, ordinal), transaction, record)))
                elif (rows := tables.get(source)) is not None and (row := rows.take(record)) is not None:
                    append(make(Change, ((commit_lsn, lsn, ROW, ordinal), transaction, row)))
                elif lsn >= (part := parts.get(source, _NEVER))[0] and kind != "T":
                    row = make(RowChange, (lsn, kind, part[1], message, complete, read, oid))  # faster than _replace
                    append(make(Change, ((commit_lsn, lsn, ROW, ordinal), transaction, row)))
                else:
                    self._take_unusual_row(record, ordinal, changes)
            else:
                row_lsn = self._take_other(record, row_lsn, changes)
                commit_lsn, transaction = self._commit_lsn, self._transaction
        self._row_lsn, self._ordinal = row_lsn, ordinal
        if row_lsn:
            self._held = _take_rows_at(commit_lsn, row_lsn, changes)
        return Burst(changes, self.watermark, commit_lsn or None)

    def complete_below(self, lsn: int) -> list[Change]:
        """Return the changes that were received below an LSN of which the server can't send the record."""
        return [] if self._row_lsn == lsn else self._held

    def _take_other(
        self, record: Begin | RegistryRow | Message | Commit | Idle, row_lsn: int, changes: list[Change]
    ) -> int:
        """Take a record that is not a row; return `row_lsn` if rows of that LSN may still follow, else 0."""
        if isinstance(record, Commit):
            self._begin = None
            self.watermark = max(self.watermark, record.end_lsn)
        elif isinstance(record, Begin):
            self._begin = record
            self._transaction = TransactionInfo(record.xid, record.timestamp, None, record.is_sent_time)
        elif isinstance(record, Message):
            rows = _take_rows_at(self._commit_lsn, record.lsn, changes)
            self._take_message(record, changes)
            changes += [row._replace(transaction=self._transaction) for row in rows]
            return record.lsn if record.lsn == row_lsn else 0
        elif isinstance(record, Idle):
            if self._begin is None:
                self.watermark = max(self.watermark, record.wal_end)
            return row_lsn
        else:
            self._take_registry_row(record, changes)
        return 0

    def _take_message(self, message: Message, changes: list[Change]) -> None:
        reported = read_message(message) if message.lsn < self._registry.messages_until else None
        if reported is None:
            self._transaction = self._transaction._replace(metadata=message.content)
            return
        schema, change = reported
        if schema == self._registry.schema and self._begin is not None:  # DDL is transactional
            changes.append(Change((self._begin.commit_lsn, message.lsn, MESSAGE, 0), self._transaction, change))

    def _take_registry_row(self, row: RegistryRow, changes: list[Change]) -> None:
        self._registry.add(row.span)
        change = _collection_change(row)
        if change is not None and change.kind == "schema":
            former = self._registry.span_at(row.span.oid, row.span.since - 1)
            if former is not None and former.shape is not None and row.span.shape is not None:
                change = change._replace(detail=(former.shape, row.span.shape))
        is_other = (row.span.shape is None and row.span.schema != self._registry.schema) or is_topic(row.span.label)
        if change is None or is_other or self._begin is None:
            return
        self._registry_ordinal = self._registry_ordinal + 2 if row.lsn == self._registry_lsn else 0
        self._registry_lsn = row.lsn
        position = (self._begin.commit_lsn, row.lsn, MESSAGE, self._registry_ordinal)
        changes.append(Change(position, self._transaction, change))

    def _take_unusual_row(self, row: RowChange, ordinal: int, changes: list[Change]) -> None:
        """Take a row of a table that has no collection now, or had another name, or a truncation."""
        if self._begin is None:
            return
        for number, found in enumerate(self._rows_of(row), ordinal):
            place = _ordinal_of_truncation(found.table) if row.kind == "T" else number
            position = (self._begin.commit_lsn, row.lsn, ROW, place)
            at = len(changes)
            while at and changes[at - 1].position > position:  # the tables of a TRUNCATE come in any order
                at -= 1
            if not at or changes[at - 1].position != position:  # else another partition of a truncated collection
                changes.insert(at, Change(position, self._transaction, found))

    def _rows_of(self, row: RowChange) -> list[RowChange]:
        """Return the row under the name of its collection or table: none if it belongs to none."""
        if row.kind == MESSAGE_KIND:
            return [row]
        if row.lsn >= self._registry.messages_until:
            span = self._registry.span_at(row.oid or row.table, row.lsn)
            if span is None:
                return []
            if span.shape is not None:
                return rows_of_table(row, span)
            return [row if row.table == span.name else row._replace(table=span.name)]
        after, before = row.images()
        is_known = row.kind == "T" or row.table in self._registry.open
        is_collection = row.table and (is_known or (after or before).keys() >= COLLECTION_COLUMNS)
        return [row] if is_collection else []


_NEVER = (1 << 64, "")


def _take_rows_at(commit_lsn: int, lsn: int, changes: list[Change]) -> list[Change]:
    """Take the rows at an LSN from the end of `changes`."""
    start = len(changes)
    while start and changes[start - 1].position[:3] == (commit_lsn, lsn, ROW):
        start -= 1
    rows = changes[start:]
    del changes[start:]
    return rows


def _collection_change(row: RegistryRow) -> CollectionChange | None:
    """Return the change that a row of the registry reports.

    A rename closes one row and opens another; the second reports it. What the migration registered was there before.
    """
    span = row.span
    if row.has_closed and row.closed_by not in {"rename", "alter"}:
        return CollectionChange(row.lsn, "drop", span.label, row.message, complete=row.exact)
    if not row.is_new or not 0 < span.since <= row.lsn:
        return None
    if row.opened_by == "alter":
        return CollectionChange(row.lsn, "schema", span.label, row.message, complete=row.exact)
    if row.opened_by == "rename" and row.from_name is not None:
        former = span._replace(name=row.from_name).label
        return CollectionChange(row.lsn, "rename", former, row.message, complete=row.exact, renamed_to=span.label)
    return CollectionChange(row.lsn, "create", span.label, row.message, complete=row.exact)


def _ordinal_of_truncation(table: str) -> int:
    """Hash the name to 56 bits: two tables of one TRUNCATE do not collide by chance."""
    return int.from_bytes(hashlib.blake2b(table.encode(), digest_size=7).digest())
