"""From records to changes that have a position and know their transaction.

A position is `(commit LSN, LSN, kind, ordinal)`. Rules:

1. Ordinals count the rows of one LSN in the order in which the server sends them. These are rows of one table, of one
   COPY. Only a TRUNCATE has several tables in one record, of which each plugin sends what its own filter lets pass. So
   the ordinal of a truncation is made from the table's name alone, and they come in the order of these ordinals. A
   message has an LSN that no other message of its transaction has, so its ordinal is 0.
2. A message can share its LSN with the row after it, and inside subtransactions the two come in either order. So the
   rows of one LSN are held back until another LSN, or the commit, shows that no message of theirs is to come.
3. Metadata holds for what comes after its message in the transaction; the last message wins.
4. A message that says what became of a collection is a change of its own. Any SQL writer can send what it likes, so
   one of another form is taken for metadata, and says nothing there.
5. A table that lacks the columns of a collection makes no change.
"""

from __future__ import annotations

import hashlib
from operator import itemgetter
from typing import TYPE_CHECKING

from pgdoc.changes.change import Burst, Change, TransactionInfo
from pgdoc.decoding.catalog_messages import read_message
from pgdoc.decoding.records import COLLECTION_COLUMNS, Begin, Commit, Idle, Message, Record, RowChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Assembler:
    """Gives each row its position and its transaction.

    Args:
        watermark: where reading starts: every transaction that commits below it is out.
        tables: of the schema, whether each is a collection.
        schema: that is read; what becomes of collections of others makes no change.
    """

    def __init__(self, watermark: int, tables: Mapping[str, bool], schema: str) -> None:
        self.watermark = watermark
        self._schema = schema
        self._tables = dict(tables)
        self._begin: Begin | None = None
        self._transaction = TransactionInfo(0, "", None)
        self._held: list[RowChange] = []
        self._held_lsn = 0

    def feed(self, records: Iterable[Record]) -> Burst:
        """Take the next records and give the changes whose places they settle."""
        changes: list[Change] = []
        for record in records:
            if isinstance(record, RowChange):
                if record.lsn != self._held_lsn:
                    self._release(changes)
                    self._held_lsn = record.lsn
                self._held.append(record)
            elif isinstance(record, Commit):
                self._release(changes)
                self._begin = None
                self.watermark = max(self.watermark, record.end_lsn)
            elif isinstance(record, Message):
                if record.lsn != self._held_lsn:
                    self._release(changes)
                self._take_message(record, changes)
            elif isinstance(record, Idle):
                if self._begin is None:
                    self.watermark = max(self.watermark, record.wal_end)
            else:
                self._begin = record
                self._transaction = TransactionInfo(record.xid, record.timestamp, None)
        return Burst(changes, self.watermark, self._begin.commit_lsn if self._begin else None)

    def _take_message(self, message: Message, changes: list[Change]) -> None:
        said = read_message(message)
        if said is None:
            self._transaction = self._transaction._replace(metadata=message.content)
            return
        schema, change = said
        if schema != self._schema or self._begin is None:  # outside of transactions no DDL speaks
            return
        changes.append(Change((self._begin.commit_lsn, message.lsn, 0, 0), self._transaction, change))
        self._tables.pop(change.table, None)
        known = change.renamed_to or (change.table if change.kind == "create" else None)
        if known is not None:
            self._tables[known] = True

    def _release(self, changes: list[Change]) -> None:
        if not self._held or self._begin is None:
            return
        commit_lsn = self._begin.commit_lsn
        for ordinal, row in _ordinals(self._held):
            if (row.complete and self._tables.get(row.table)) or self._is_collection(row):
                change = ((commit_lsn, row.lsn, 1, ordinal), self._transaction, row)
                changes.append(tuple.__new__(Change, change))  # half the time of Change(*change)
        self._held = []

    def _is_collection(self, row: RowChange) -> bool:
        """Look at a row whose table is not known as a collection, or was none when the row was written.

        The truncation of an unknown table counts as one of a collection. So does a DELETE that came without the whole
        old row, if nothing in it is foreign to one: a collection whose replica identity was changed.
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


def _ordinals(rows: list[RowChange]) -> Iterable[tuple[int, RowChange]]:
    """Give the rows of one LSN with their ordinals, in order."""
    if rows[0].kind != "T":
        return enumerate(rows)
    return sorted(((_ordinal_of_truncation(row.table), row) for row in rows), key=itemgetter(0))


def _ordinal_of_truncation(table: str) -> int:
    """Make a number of 56 bits from a name: no two tables that are truncated together have the same by chance."""
    return int.from_bytes(hashlib.blake2b(table.encode(), digest_size=7).digest())
