"""The snapshot of a stream: the existing documents are delivered first, in chunks, while changes continue.

A chunk is the next documents of one collection by id. One statement reads it, together with the transactions that it
saw (`pg_current_snapshot`) and the end of the WAL at that time, `end_lsn`. When the stream has come to `end_lsn`, the
chunk is due: by then it equals the table at exactly that position. Until then:

1. A change to a document of the waiting chunk is not delivered. If the statement saw the change's transaction, the
   chunk contains it already; if not, the chunk is updated with it. The statement saw no transaction beyond `end_lsn`.
2. A change to a document that no chunk contains yet is not delivered: a later chunk will contain it. A change can
   arrive before its commit is visible to other statements. So such transactions are remembered, and a chunk that does
   not see all of them is rejected and read again.
3. A change to a document that was delivered is delivered, and so is every change of a whole collection.

A chunk may be read while the one before it is delivered. It is only older then when the stream takes it in: rule 1
brings it up to date. The stream takes no change while it has no document to deliver and waits for a chunk that is
being read: the chunk would not have seen it, and be rejected.

So the events, applied in order to nothing, give the tables as they are at the stream's position, for all documents up
to the last one delivered. That position and a `SnapshotProgress` are enough to resume.

An interrupt between any two calls loses nothing: each call changes the state by plain assignments at its end, or in a
way that repeating the call repeats.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.decoding.records import CollectionChange
from pgdoc.errors import HistoryLost, InvalidResumeToken
from pgdoc.model.documents import Document, Origin, TypedDocument
from pgdoc.model.json_codec import decode
from pgdoc.model.stored_rows import columns_of_stored
from pgdoc.model.table_names import is_table_name
from pgdoc.model.tokens import SnapshotProgress
from pgdoc.model.typed.reader import ModelReader

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pgdoc.changes.change import Change
    from pgdoc.changes.router import Selection
    from pgdoc.decoding.records import TableShape
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.model.key_order import KeyOrder
    from pgdoc.model.positions import Ids, RawPosition


_HALF = 1 << 31


@dataclass(frozen=True, slots=True)
class PgSnapshot:
    """The transactions that a statement saw: those below `xmax` that are not in progress.

    Attributes:
        xmin: all transactions below it had ended.
        xmax: none at or above it had ended.
        in_progress: those between the two that had not ended.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> PgSnapshot:
        """Parse `pg_current_snapshot()`: `xmin:xmax:xip_list`."""
        xmin, xmax, in_progress = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, filter(None, in_progress.split(",")))))

    def sees(self, xid: int) -> bool:
        """Return whether a transaction is visible; `xid` may be its lower 32 bits, all that the WAL has."""
        xid = self.xmax + ((xid - self.xmax + _HALF) % (2 * _HALF)) - _HALF
        return xid < self.xmin or (xid < self.xmax and xid not in self.in_progress)


@dataclass(slots=True)
class SnapshotChunk:
    """The next documents of a collection, as one statement read them.

    Attributes:
        after: the chunk begins after this document id.
        documents: by id, as rows. Changes that the statement did not see are applied to them, as documents.
        up_to: the last id that the chunk covers; `None` if it covers all that remains of the collection.
        end_lsn: the end of the WAL after the statement.
        order, shape: those of a watched table.
        decode_text: decodes the documents of a collection, in a stream that has no decoder of its own.
        is_in_order: whether the documents are as the statement returned them, sorted.
    """

    collection: str
    after: str
    documents: dict[str, Any]
    up_to: str | None
    seen: PgSnapshot
    end_lsn: int
    read_at: datetime
    order: KeyOrder | None = None
    shape: TableShape | None = None
    decode_text: JsonDecoder = decode
    is_in_order: bool = True

    def covers(self, document_id: str) -> bool:
        """Return whether it has the document, if that exists; the chunks before it do not."""
        if self.up_to is None:
            return True
        return bool(_place(document_id, self.order) <= _place(self.up_to, self.order))


class Place(NamedTuple):
    """What the documents of a chunk share with the stream that delivers them.

    Attributes:
        position: where the stream is.
        ids: what its tokens carry.
        decode_text: its own decoder, if it has one.
    """

    position: RawPosition
    ids: Ids
    decode_text: JsonDecoder | None


class DueChunk(NamedTuple):
    """Documents to deliver.

    Attributes:
        part: what they have in common.
        keys: their ids, in order.
        rows: their rows, or documents.
    """

    part: DuePart
    keys: list[str]
    rows: list[Any]


@dataclass(frozen=True, slots=True)
class DuePart:
    """What the documents of a chunk that is due have in common.

    Attributes:
        count: the number of documents.
        before, after: the progress before the first of them, and that after the last.
        shape: that of a watched table.
        origin: that of the documents of a collection.
    """

    collection: str
    read_at: datetime
    place: Place
    count: int
    before: SnapshotProgress
    after: SnapshotProgress
    shape: TableShape | None
    origin: Origin

    def progress(self, number: int, document_id: str) -> SnapshotProgress:
        """Return the progress once the first `number` documents are delivered, of which this is the last."""
        if number == self.count:
            return self.after
        remaining, _, stream_digest, delivered = self.before
        stored = progress_id(self.collection, document_id)
        return SnapshotProgress(remaining, stored, stream_digest, delivered + number)


class Snapshot:
    """The state of one stream's snapshot.

    Args:
        progress: where it starts.
        selection: what the stream is on.
        order: that of the first collection, if it is a table of which rows were delivered.

    Attributes:
        order: that of the table that is read; `None` for a collection, and before the first chunk.
        due: the chunk being delivered, or delivered last.
        next: the index in `due` of the first document to deliver. Delivery advances it.
        is_being_read: whether the chunk that is wanted is being read, so that changes must wait for it.
    """

    def __init__(self, progress: SnapshotProgress, selection: Selection, order: KeyOrder | None = None) -> None:
        self.order = order
        self._remaining = list(progress.remaining)
        self._after = progress.document_id
        self._stream_digest = progress.stream_digest
        self._delivered = progress.delivered
        self._selection = selection
        self._waiting: SnapshotChunk | None = None  # read, and not due yet
        self._unseen: set[int] = set()  # transactions that the next chunk has to see
        self.due: DueChunk | None = None
        self.next = 0
        self.is_being_read = False

    @property
    def progress(self) -> SnapshotProgress:
        """The progress once all of `due` is delivered."""
        return SnapshotProgress(tuple(self._remaining), self._after, self._stream_digest, self._delivered)

    @property
    def delivered(self) -> SnapshotProgress:
        """The progress with those documents of `due` that come before `next`."""
        due, count = self.due, self.next
        if due is None or self.is_delivered:
            return self.progress
        return due.part.progress(count, due.keys[count - 1]) if count else due.part.before

    @property
    def is_delivered(self) -> bool:
        """Whether all of `due` is delivered."""
        return self.due is None or self.next == self.due.part.count

    @property
    def wanted(self) -> tuple[str, str] | None:
        """The collection to read next, and the id to read after; `None` while a chunk waits, and at the end."""
        return None if self._waiting or not self._remaining else (self._remaining[0], self._after)

    @property
    def due_at(self) -> int | None:
        """The commit LSN that the stream must reach before the waiting chunk is due."""
        return self._waiting.end_lsn if self._waiting else None

    def accept(self, chunk: SnapshotChunk) -> bool:
        """Take the chunk that was asked for; return `False` if it was too early, and must be read again."""
        unseen = {xid for xid in self._unseen if not chunk.seen.sees(xid)}
        is_accepted = self.wanted == (chunk.collection, chunk.after) and not unseen
        # A table that is not found by its name may have another one, and the same order, where the stream comes to.
        order = self.order if self._after and chunk.order is None else chunk.order
        # Nothing but plain assignments from here on: see the module.
        if is_accepted:
            self._unseen, self._waiting, self.order = unseen, chunk, order
        self.is_being_read = False
        return is_accepted

    def release(self, place: Place) -> None:
        """Make the waiting chunk due."""
        chunk = self._waiting
        if chunk is None:
            return
        before, order, keys = self.progress, chunk.order, list(chunk.documents)
        if not chunk.is_in_order:
            keys.sort(key=None if order is None else order.place)
        is_last = chunk.up_to is None
        remaining = [name for name in self._remaining if name != chunk.collection] if is_last else self._remaining
        after = before._replace(
            remaining=tuple(remaining),
            document_id="" if is_last else progress_id(chunk.collection, chunk.up_to or ""),
            delivered=before.delivered + len(keys),
        )
        decode_text = place.decode_text or chunk.decode_text
        kind = TypedDocument if isinstance(decode_text, ModelReader) else Document
        origin = Origin(chunk.collection, columns_of_stored, decode_text, kind)
        part = DuePart(chunk.collection, chunk.read_at, place, len(keys), before, after, chunk.shape, origin)
        due = DueChunk(part, keys, [chunk.documents[key] for key in keys])
        # Nothing but plain assignments from here on: see the module.
        self.due, self.next, self._waiting = due, 0, None
        self._remaining, self._after, self._delivered = remaining, after.document_id, after.delivered

    def absorb(self, change: Change, view: Any) -> bool:
        """Apply the next change; return whether a chunk covers it, so that it is not delivered.

        `view` has the change's `document_id` and `full_document`.
        """
        row = change.row
        if isinstance(row, CollectionChange):
            self._follow(change, row)
            return False
        if row.table not in self._remaining:
            return False
        if row.kind == "T":
            self._follow_truncation(change)
            return False
        return self._absorb_row(change, view)

    def _absorb_row(self, change: Change, view: Any) -> bool:
        table, document_id = change.row.table, view.document_id
        if table == self._remaining[0] and self._has_delivered(document_id):
            return False
        if self._is_seen(change):
            return True
        chunk = self._waiting
        if chunk is None or table != chunk.collection or not chunk.covers(document_id):
            self._unseen.add(change.transaction.xid)
        elif view.full_document is None:
            chunk.documents.pop(document_id, None)
        else:
            document = view.full_document
            chunk.is_in_order = False  # first: an interrupt after this only costs a sort
            chunk.documents[document_id] = document
        return True

    def _has_delivered(self, document_id: str) -> bool:
        """Return whether the snapshot has passed a document of the collection that is read."""
        last = delivered_id(self._remaining[0], self._after)
        return last is not None and _place(document_id, self.order) <= _place(last, self.order)

    def _follow_truncation(self, change: Change) -> None:
        """Empty the waiting chunk if it did not see the truncation, and require later chunks to see it."""
        if self._is_seen(change):
            return
        self._unseen.add(change.transaction.xid)
        if self._waiting is not None and self._waiting.collection == change.row.table:
            self._waiting.documents.clear()

    def _is_seen(self, change: Change) -> bool:
        """Return whether the waiting chunk, and so every later one, saw the change."""
        return self._waiting is not None and self._waiting.seen.sees(change.transaction.xid)

    def _follow(self, change: Change, row: CollectionChange) -> None:
        """Follow a change of a collection: a dropped one is not read, and a created one arrives as changes."""
        table, renamed_to = row.table, row.renamed_to
        if row.kind == "create" or table not in self._remaining:
            return
        if row.kind == "schema":
            if row.shapes is None or row.shapes[0].key_columns != row.shapes[1].key_columns:
                self._follow_key(change)
            return
        if self._waiting is not None and self._waiting.collection == table:
            self._waiting = None  # the name may have led to another table when the chunk was read
        if renamed_to is not None and self._selection.covers(renamed_to):
            self._remaining[self._remaining.index(table)] = renamed_to
        else:
            self._finish(table)

    def _follow_key(self, change: Change) -> None:
        """Read a table again of which the rows have other keys now, if none was delivered yet.

        Raises:
            HistoryLost: some rows were delivered under their former keys.
        """
        table = change.row.table
        if table == self._remaining[0] and self._after:
            raise HistoryLost(
                f'the primary key of table "{table}" has changed during its snapshot: open the stream without the '
                "token, to begin the snapshot again"
            )
        if not self._is_seen(change):
            self._unseen.add(change.transaction.xid)
            if self._waiting is not None and self._waiting.collection == table:
                self._waiting = None

    def _finish(self, collection: str) -> None:
        if collection == self._remaining[0]:
            self._after = ""
        self._remaining.remove(collection)


def progress_id(collection: str, document_id: str) -> str:
    """Return the document id of a `SnapshotProgress`. The key of a table's row can be empty, which means none there."""
    return f"={document_id}" if is_table_name(collection) else document_id


def delivered_id(collection: str, after: str) -> str | None:
    """Return the id of the last document that was delivered, from the document id of a `SnapshotProgress`."""
    return None if not after else after[is_table_name(collection) :]


def _place(document_id: str, order: KeyOrder | None) -> Any:
    return document_id if order is None else order.place(document_id)


def first_progress(names: Iterable[str], selection: Selection) -> SnapshotProgress:
    """Return the progress of a snapshot that begins with the collections `names`."""
    return SnapshotProgress(tuple(sorted(names)), "", _digest(selection), 0)


def check_progress(progress: SnapshotProgress, selection: Selection) -> SnapshotProgress:
    """Return the progress; raise `InvalidResumeToken` if it is from a stream of other collections.

    A token can come from a browser, which can forge it: it must not lead to a collection that the stream is not on.
    """
    if progress.stream_digest != _digest(selection) or not all(map(selection.covers, progress.remaining)):
        raise InvalidResumeToken(
            "the token is from inside the snapshot of other collections: resume with the collections of that snapshot"
        )
    return progress


def _digest(selection: Selection) -> str:
    if selection.collections is None:
        return "*.*" if selection.with_tables else "*"
    return f"{zlib.crc32(' '.join(sorted(selection.collections)).encode()):08x}"
