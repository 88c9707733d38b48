"""A snapshot of collections between their changes: what exists comes first, in parts, while changes go on.

A part is the next documents of a collection in the order of their ids, read by one statement, which also tells what it
saw (`pg_current_snapshot`) and where the WAL ended then, `end`. It is given out when the stream has come to `end`, and
is by then what the table was at just that place, for until there:

1. A change of a document of the part is not given. Where the statement saw its transaction, the part has it already;
   where not, the part takes it in. Beyond `end` there is no transaction that the statement saw.
2. A change of a document that no part has had yet is not given: the part that will have it is read later. That this one
   sees the transaction is not certain, since a change can arrive before its commit is visible. So such transactions are
   remembered, and no part is used that does not see them all.
3. A change of a document that was given is given, and so is all that becomes of collections.

An interrupt can come between any two calls, and loses nothing: what a call changes is changed by plain assignments at
its end, or in the same way when the call is made again.

So the events, applied in order to nothing, give the tables as they are at the stream's place, for all documents up to
the last part. That place and `Progress` are all that is needed to go on another day.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.errors import InvalidResumeToken
from pgdoc.model.tokens import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pgdoc.changes.change import Change


_HALF = 1 << 31


@dataclass(frozen=True, slots=True)
class PgSnapshot:
    """Which transactions a statement saw: those below `before`, and those below `end` that are not in `running`."""

    before: int
    end: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> PgSnapshot:
        """Read what `pg_current_snapshot()` prints, `xmin:xmax:xip_list`."""
        before, end, running = text.split(":")
        return cls(int(before), int(end), frozenset(map(int, filter(None, running.split(",")))))

    def has(self, xid: int) -> bool:
        """Tell whether it saw a transaction, of whose number the WAL has the lower 32 bits."""
        xid = self.end + ((xid - self.end + _HALF) % (2 * _HALF)) - _HALF
        return xid < self.before or (xid < self.end and xid not in self.running)


@dataclass(slots=True)
class SnapshotChunk:
    """The next documents of a collection.

    Attributes:
        collection: whose they are.
        after: the id behind which they begin.
        documents: by their ids.
        upto: the last id that it speaks of; `None` where it has all that is left.
        seen: which transactions it saw.
        end: where the WAL ended then.
        read_at: when that was.
    """

    collection: str
    after: str
    documents: dict[str, Any]
    upto: str | None
    seen: PgSnapshot
    end: int
    read_at: datetime


class DueChunk(NamedTuple):
    """Documents to be given, at the place `end` of the stream, each with how far the snapshot has come with it."""

    collection: str
    end: int
    read_at: datetime
    documents: list[tuple[Any, Progress]]


class Snapshot:
    """Follows the snapshot of one stream.

    Args:
        progress: how far it has come.
        names: the collections that the stream watches; `None` for all.

    Attributes:
        ready: what became ripe last; who gives the documents moves `next` on, the index of the one that comes next.
        next: see there.
    """

    def __init__(self, progress: Progress, names: frozenset[str] | None) -> None:
        self._left = list(progress.left)
        self._after = progress.document_id
        self._of = progress.of
        self._given = progress.given
        self._names = names
        self._part: SnapshotChunk | None = None
        self._unseen: set[int] = set()
        self.ready: DueChunk | None = None
        self.next = 0

    @property
    def progress(self) -> Progress:
        """How far it has come, when all that is ready has been given."""
        return Progress(tuple(self._left), self._after, self._of, self._given)

    @property
    def wanted(self) -> tuple[str, str] | None:
        """The collection to read from, and the id behind which to begin; `None` while a part waits, and at the end."""
        return None if self._part or not self._left else (self._left[0], self._after)

    @property
    def due_at(self) -> int | None:
        """The commit LSN up to which the stream has to come before the part that waits is given."""
        return self._part.end if self._part else None

    def read(self, part: SnapshotChunk) -> bool:
        """Take the part that was asked for; give `False` where it was read too early."""
        if self.wanted != (part.collection, part.after):
            return False
        self._unseen = {xid for xid in self._unseen if not part.seen.has(xid)}
        if self._unseen:
            return False
        self._part = part
        return True

    def release(self) -> None:
        """Make the documents of the part ready that waits."""
        part = self._part
        if part is None:
            return
        before, keys = self.progress, sorted(part.documents)
        left = self._left if part.upto is not None else [name for name in self._left if name != part.collection]
        after = before._replace(left=tuple(left), document_id=part.upto or "", given=before.given + len(keys))
        documents = [
            (part.documents[key], before._replace(document_id=key, given=before.given + number))
            for number, key in enumerate(keys, 1)
        ]
        if documents:
            documents[-1] = (documents[-1][0], after)
        ready = DueChunk(part.collection, part.end, part.read_at, documents)
        self.ready, self.next, self._part = ready, 0, None
        self._left, self._after, self._given = left, after.document_id, after.given

    def takes(self, change: Change, view: Any) -> bool:
        """Follow the next change; give whether the snapshot takes it to itself, so that it is not for the user.

        Args:
            change: the next one.
            view: what tells its document's id and the document as it left it.
        """
        row = change.row
        if row.kind not in "IUDT":
            self._follow(row.kind, row.table, row.renamed_to)
            return False
        if row.table not in self._left:
            return False
        if row.kind == "T":
            self._follow_truncation(change)
            return False
        return self._takes_row(change, view)

    def _takes_row(self, change: Change, view: Any) -> bool:
        table, document_id = change.row.table, view.document_id
        if table == self._left[0] and document_id <= self._after:
            return False
        if self._sees(change):
            return True
        part = self._part
        if part is None or table != part.collection or (part.upto is not None and document_id > part.upto):
            self._unseen.add(change.transaction.xid)
        elif view.full_document is None:
            part.documents.pop(document_id, None)
        else:
            part.documents[document_id] = view.full_document
        return True

    def _follow_truncation(self, change: Change) -> None:
        """Empty the part that did not see it; a later one has to."""
        if self._sees(change):
            return
        self._unseen.add(change.transaction.xid)
        if self._part is not None and self._part.collection == change.row.table:
            self._part.documents.clear()

    def _sees(self, change: Change) -> bool:
        """Whether the part that waits, and so every later one, saw the transaction."""
        return self._part is not None and self._part.seen.has(change.transaction.xid)

    def _follow(self, kind: str, table: str, renamed_to: str | None) -> None:
        """Follow what became of a collection: one that was dropped has nothing to read, one that is new comes whole."""
        if kind == "create" or table not in self._left:
            return
        if self._part is not None and self._part.collection == table:
            self._part = None  # the name may have led to another table by then
        if renamed_to is not None and (self._names is None or renamed_to in self._names):
            self._left[self._left.index(table)] = renamed_to
        else:
            self._finish(table)

    def _finish(self, collection: str) -> None:
        if collection == self._left[0]:
            self._after = ""
        self._left.remove(collection)


def first_progress(names: Iterable[str], collections: frozenset[str] | None) -> Progress:
    """Give the beginning of the snapshot of collections, for a stream of these, or of all."""
    return Progress(tuple(sorted(names)), "", _digest(collections), 0)


def check_progress(progress: Progress, collections: frozenset[str] | None) -> Progress:
    """Refuse the progress of a stream of other collections.

    Raises:
        InvalidResumeToken: it is one.
    """
    if progress.of != _digest(collections):
        raise InvalidResumeToken(
            "the token is from inside the snapshot of other collections: go on with those that it was begun with"
        )
    return progress


def _digest(collections: frozenset[str] | None) -> str:
    return "*" if collections is None else f"{zlib.crc32(' '.join(sorted(collections)).encode()):08x}"
