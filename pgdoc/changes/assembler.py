"""From records to changes that have a position and know their transaction.

A position is `(commit LSN, LSN, kind, ordinal)` (`pgdoc.model.positions`). Rules:

1. Ordinals count the rows of one LSN as the server sends them: rows of one table, from one COPY. Only a TRUNCATE has
   several tables in one record, and each plugin sends those that its own filter lets pass. So a truncation's ordinal
   derives from the table's name alone, and orders the truncations. No two messages of a transaction share an LSN, so a
   message's ordinal is 0.
2. A message can share its LSN with the row after it, and inside subtransactions the two come in either order. So the
   rows of one LSN are buffered until another LSN, or the commit.
3. Metadata applies to the changes after its message in the transaction. The last message wins.
4. A message that reports what happened to a collection is a change of its own. Any SQL writer can send any message; one
   of another form is taken for metadata, which `events` ignores unless it is valid.
5. A table without the columns of a collection produces no changes.
"""

from __future__ import annotations

import hashlib
from operator import itemgetter
from typing import TYPE_CHECKING

from pgdoc.changes.change import Burst, Change, TransactionInfo
from pgdoc.decoding.catalog_messages import read_message
from pgdoc.decoding.records import COLLECTION_COLUMNS, Begin, Commit, Idle, Message, Record, RowChange
from pgdoc.model.positions import MESSAGE, ROW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Assembler:
    """Gives each change its position and its transaction.

    Args:
        watermark: every transaction that commits below it was delivered before.
        tables: whether each table of the schema is a collection.
        schema: the schema that is read; others are ignored.
    """

    def __init__(self, watermark: int, tables: Mapping[str, bool], schema: str) -> None:
        self.watermark = watermark
        self._schema = schema
        self._tables = dict(tables)
        self._begin: Begin | None = None
        self._transaction = TransactionInfo(0, "", None)
        self._buffered: list[RowChange] = []  # the rows of one LSN: rule 2
        self._buffered_lsn = 0

    def feed(self, records: Iterable[Record]) -> Burst:
        """Take the next records; return the changes whose positions are now final."""
        changes: list[Change] = []
        for record in records:
            if isinstance(record, RowChange):
                if record.lsn != self._buffered_lsn:
                    self._flush(changes)
                    self._buffered_lsn = record.lsn
                self._buffered.append(record)
            elif isinstance(record, Commit):
                self._flush(changes)
                self._begin = None
                self.watermark = max(self.watermark, record.end_lsn)
            elif isinstance(record, Message):
                if record.lsn != self._buffered_lsn:
                    self._flush(changes)
                self._take_message(record, changes)
            elif isinstance(record, Idle):
                if self._begin is None:
                    self.watermark = max(self.watermark, record.wal_end)
            else:
                self._begin = record
                self._transaction = TransactionInfo(record.xid, record.timestamp, None)
        return Burst(changes, self.watermark, self._begin.commit_lsn if self._begin else None)

    def _take_message(self, message: Message, changes: list[Change]) -> None:
        reported = read_message(message)
        if reported is None:
            self._transaction = self._transaction._replace(metadata=message.content)
            return
        schema, change = reported
        if schema != self._schema or self._begin is None:  # DDL is transactional, so no message outside is pgdoc's
            return
        changes.append(Change((self._begin.commit_lsn, message.lsn, MESSAGE, 0), self._transaction, change))
        self._tables.pop(change.table, None)
        collection = change.renamed_to or (change.table if change.kind == "create" else None)
        if collection is not None:
            self._tables[collection] = True

    def _flush(self, changes: list[Change]) -> None:
        if not self._buffered or self._begin is None:
            return
        commit_lsn = self._begin.commit_lsn
        for ordinal, row in _with_ordinals(self._buffered):
            if (row.complete and self._tables.get(row.table)) or self._is_collection(row):
                change = ((commit_lsn, row.lsn, ROW, ordinal), self._transaction, row)
                changes.append(tuple.__new__(Change, change))  # takes half the time of Change(*change)
        self._buffered = []

    def _is_collection(self, row: RowChange) -> bool:
        """Return whether a row of an unknown table, or an incomplete row, belongs to a collection.

        The truncation of an unknown table counts as that of a collection. So does a DELETE without the whole old row
        whose columns are all those of a collection: its replica identity was changed.
        """
        known = self._tables.get(row.table)
        if row.kind == "T":
            return known is not False
        after, before = row.images()
        if row.kind == "D" and not row.complete:
            return known is True and before.keys() <= COLLECTION_COLUMNS
        found = (after or before).keys() >= COLLECTION_COLUMNS
        if found:
            self._tables[row.table] = True
        return found


def _with_ordinals(rows: list[RowChange]) -> Iterable[tuple[int, RowChange]]:
    if rows[0].kind != "T":
        return enumerate(rows)
    return sorted(((_ordinal_of_truncation(row.table), row) for row in rows), key=itemgetter(0))


def _ordinal_of_truncation(table: str) -> int:
    """Hash the name to 56 bits: two tables of one TRUNCATE do not collide by chance."""
    return int.from_bytes(hashlib.blake2b(table.encode(), digest_size=7).digest())
