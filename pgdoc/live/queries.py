"""The live queries of one collection or table: from events to batches.

A result may only move where a transaction ends. The events come in the order of the commits, but not with them: a
transaction is complete when the stream has passed its commit LSN, or the next one begins.

A statement's snapshot is not a place in the WAL, see `pgdoc.changes.snapshot`. So a read counts once the stream has
come to the end of the WAL as of the statement: its rows, and the changes that it has not seen, are the table there.

1. What the stream takes while a read is under way waits, and is applied afterwards if the statement did not see it.
2. What the stream took before it must be seen. A transaction can be in the stream before statements see it; then the
   read was too early, and is repeated.
3. The statement saw no transaction beyond the end of the WAL as of itself. So where the stream comes to that, nothing
   is missing, and nothing is counted twice.

A read of another timeline than the stream's does not count: during a failover the two may lead to different servers.

Other queries go on meanwhile, and no change has to wait for a read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from pgdoc.changes.events import change_of, twin_of
from pgdoc.errors import CollectionNotFound, PgdocError
from pgdoc.live.images import RowImage
from pgdoc.live.inbox import LivePlace
from pgdoc.live.routing import LiveRouter
from pgdoc.live.shared import PendingRead, RowEvent, SharedQuery
from pgdoc.model.positions import BEFORE_ALL, before_commits_at, commit_lsn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.inbox import LiveInbox
    from pgdoc.live.shared import LiveRows, LiveWanted
    from pgdoc.model.documents import Document
    from pgdoc.model.positions import Ids, RawPosition

__all__ = ["LiveQueries", "no_longer_there"]

C = TypeVar("C")

MANY_TAKEN: Final = 10_000
"""From so many transactions on, of which it is not known whether statements see them, it is asked."""


class LiveQueries:
    """All live queries of one collection or table. The lock of the source guards it.

    Attributes:
        place: all changes of the transactions before it are applied, and none of those after it.
        failed: the queries that an error keeps from going on, for the source to end.
    """

    def __init__(self) -> None:
        self.place = LivePlace(BEFORE_ALL, (0, 0, None))
        self.failed: list[tuple[SharedQuery[Any], Exception]] = []
        self._queries: dict[Hashable, SharedQuery[Any]] = {}
        self._router: LiveRouter[SharedQuery[Any]] = LiveRouter()
        self._touched: dict[SharedQuery[Any], None] = {}  # since the last commit
        self._reading: dict[SharedQuery[Any], None] = {}  # those with a read that has begun
        self._wanting: dict[SharedQuery[Any], None] = {}  # those whose read has not begun
        self._open: RawPosition | None = None  # the end of the transaction of which changes were taken last
        self._taken: set[int] = set()  # the transactions that were taken, and that statements may not see yet

    def __iter__(self) -> Iterator[SharedQuery[Any]]:
        return iter(list(self._queries.values()))

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def has_open_transaction(self) -> bool:
        """Whether changes were taken of which it is not known yet whether their transaction is complete."""
        return self._open is not None

    @property
    def due_at(self) -> int | None:
        """The LSN that the stream must reach for the next read to be due; `None` if none waits for that."""
        due = [
            query.read.rows.end_lsn for query in self._reading if query.read is not None and query.read.rows is not None
        ]
        return min(due, default=None)

    @property
    def has_room(self) -> bool:
        """Whether changes may be taken although reads are under way."""
        return all(query.read is None or query.read.has_room for query in self._reading)

    @property
    def has_many_taken(self) -> bool:
        """Whether `note_visible` should be called soon."""
        return len(self._taken) >= MANY_TAKEN

    def join(self, wanted: LiveWanted[C], inbox: LiveInbox[C]) -> SharedQuery[C]:
        """Let a handle follow the query; make the query if there is none like it."""
        query = self._queries.get(wanted.key)
        if query is None:
            query = SharedQuery(wanted)
            self._queries[wanted.key] = query
            self._router.add(query, wanted.required)
            self._wanting[query] = None
        query.inboxes[inbox] = None
        return query

    def leave(self, query: SharedQuery[C], inbox: LiveInbox[C]) -> None:
        """Undo `join`; drop a query without handles."""
        query.inboxes.pop(inbox, None)
        if not query.inboxes:
            self._drop(query)

    def _drop(self, query: SharedQuery[Any]) -> None:
        if self._queries.get(query.wanted.key) is query:
            del self._queries[query.wanted.key]
            self._router.remove(query, query.wanted.required)
        for queries in (self._touched, self._reading, self._wanting):
            queries.pop(query, None)

    def end(self, query: SharedQuery[Any], error: BaseException | None) -> None:
        """End one query: its handles raise the error."""
        for inbox in list(query.inboxes):
            inbox.end(error)
        self._drop(query)

    def end_all(self, error: BaseException | None) -> None:
        """End all queries."""
        for query in self:
            self.end(query, error)

    def take(self, events: Iterable[ChangeEvent[Any]], ids: Ids) -> None:
        """Apply the next events, all of rows or truncations."""
        for event in events:
            change = change_of(event)
            if self.begin_transaction(change.position, ids):
                self._taken.add(change.transaction.xid)
            self._apply(event, change.transaction.xid, is_truncation=change.row.kind == "T")

    def begin_transaction(self, position: RawPosition, ids: Ids) -> bool:
        """Note where the next change is; return whether it begins a transaction, so that the one before is complete."""
        end = before_commits_at(commit_lsn_of(position) + 1)
        if self._open == end:
            return False
        if self._open is not None:
            self._commit(LivePlace(self._open, ids))
        self._open = end
        return True

    def _apply(self, event: ChangeEvent[Any], xid: int, *, is_truncation: bool) -> None:
        queries: Iterable[SharedQuery[Any]]
        if is_truncation:
            taken, queries = RowEvent(xid, None, None, event), list(self._queries.values())
        else:
            view = twin_of(event)  # reading its fields leaves those of `event` unread
            try:
                before, after = _image(view.full_document_before_change), _image(view.full_document)
            except PgdocError:  # what PostgreSQL has may be readable
                self.want_all()
                return
            taken = RowEvent(xid, before, after, event)
            queries = self._router.find(taken.images)
        for query in queries:
            try:
                query.apply(taken)
            except Exception as exc:  # noqa: BLE001 (see `failed`)
                self.failed.append((query, exc))
            if query.is_touched:
                self._touched[query] = None
        for image in taken.images:
            image.release()

    def come_to(self, place: LivePlace) -> None:
        """Note that every change of the transactions before this place was taken."""
        if place.ids == self.place.ids and place.position < self.place.position:
            return  # while changes wait to be taken, it is that of the last one
        if self._open is not None:
            if place.position < self._open:
                return
            self._open = None
        if place != self.place or self._touched or self._reading:
            self._commit(place)

    def _commit(self, place: LivePlace) -> None:
        self.place = place
        for query in [each for each in self._reading if self._is_due(each)]:
            try:
                is_loaded = self._is_of_this_timeline(query) and query.load()
            except Exception as exc:  # noqa: BLE001 (see `failed`)
                self.failed.append((query, exc))
                is_loaded = True
            if is_loaded:
                del self._reading[query]
                self._touched[query] = None
            else:
                self.want_again(query)
        touched, self._touched = self._touched, {}
        for query in touched:
            if query.can_commit:
                try:
                    query.commit(place)
                except Exception as exc:  # noqa: BLE001 (see `failed`)
                    self.failed.append((query, exc))
                continue
            query.is_current = False
            if query.read is None:
                self._wanting[query] = None

    def _is_due(self, query: SharedQuery[Any]) -> bool:
        rows = query.read.rows if query.read is not None else None
        return rows is not None and commit_lsn_of(self.place.position) >= rows.end_lsn

    def _is_of_this_timeline(self, query: SharedQuery[Any]) -> bool:
        """Return whether no failover has come between the read and the place where it is due."""
        rows = query.read.rows if query.read is not None else None
        return rows is not None and rows.timeline == self._timeline

    @property
    def _timeline(self) -> int:
        return self.place.ids[1]

    def begin_read(self, now: float) -> SharedQuery[Any] | None:
        """Return a query to read for now; `None` if there is none."""
        query = next((each for each in self._wanting if each.not_before <= now), None)
        if query is not None:
            del self._wanting[query]
            query.read = PendingRead(tuple(self._taken))
            self._reading[query] = None
        return query

    @property
    def next_read_at(self) -> float | None:
        """When to call `begin_read` next; `None` if no read is wanted."""
        return min((query.not_before for query in self._wanting), default=None)

    def end_read(self, query: SharedQuery[Any], read: PendingRead | None, rows: LiveRows | None) -> bool:
        """Take what was read; return `False` if it was too early, or nothing, and must be read again."""
        if read is None or query.read is not read:  # the query has ended, or wants another read
            return True
        # What was taken while the read was under way waits. Of what was taken before, nothing may be missing.
        if rows is None or rows.timeline != self._timeline or not all(map(rows.sees, read.must_see)):
            self.want_again(query)
            return False
        read.rows = rows
        self.note_visible(rows.sees)
        return True

    def want_again(self, query: SharedQuery[Any]) -> None:
        """Read for a query again, from the beginning."""
        query.read, query.is_current = None, False
        self._reading.pop(query, None)
        if self._queries.get(query.wanted.key) is query:
            self._wanting[query] = None

    def want_all(self) -> None:
        """Read for all queries again: what they have is out of date."""
        for query in self:
            query.is_stale = True
            self.want_again(query)

    def restart(self, place: LivePlace) -> None:
        """Go on in another stream, which has begun at this place: what lies between is not known."""
        self._open, self._taken, self._touched = None, set(), {}
        self.place = place
        self.want_all()

    def note_visible(self, sees: Callable[[int], bool]) -> None:
        """Note which transactions a statement saw, and so every one that begins after this call."""
        self._taken = {xid for xid in self._taken if not sees(xid)}


def no_longer_there(subject: str, kind: str, renamed_to: str | None) -> CollectionNotFound:
    """Make the error for what is followed until a drop or rename: `kind` says which."""
    if kind != "drop":
        found, step = f'is called "{renamed_to}" now', "open new ones under the new name"
    elif subject.startswith("table"):
        found = "was dropped, or is no longer watched"
        step = "watch it again with store.add_table(), and open new ones"
    else:
        found, step = "was dropped", "open new ones when it exists again"
    return CollectionNotFound(f"{subject} {found}, which ends its live queries and mirrors: {step}")


def _image(document: Document[Any] | None) -> RowImage | None:
    return None if document is None else RowImage(document)
