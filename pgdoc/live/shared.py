"""One live query, which all handles that ask the same share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from pgdoc.changes.events import change_of
from pgdoc.live.inbox import LiveBatch, LiveInbox
from pgdoc.live.window import LiveWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.images import RowImage
    from pgdoc.live.inbox import LivePlace
    from pgdoc.live.routing import RequiredValue
    from pgdoc.live.state import LiveState

__all__ = ["LiveRows", "LiveWanted", "PendingRead", "RowEvent", "SharedQuery"]

C = TypeVar("C")

MOST_WAITING: Final = 100_000
MOST_WAITING_BYTES: Final = 256 << 20
"""How much may wait for a read; no more is taken from the stream then."""


EARLY_S: Final = 0.01
"""How long to wait where a read was too early."""


class RowEvent(NamedTuple):
    """A change of one row, or a truncation, which has no images.

    Attributes:
        event: as handles give it out; nobody has read its fields.
    """

    xid: int
    before: RowImage | None
    after: RowImage | None
    event: ChangeEvent

    @property
    def images(self) -> list[RowImage]:
        """The images that there are."""
        return [image for image in (self.before, self.after) if image is not None]


class LiveRows(NamedTuple):
    """What a statement read for a live query.

    Attributes:
        rows: what `LiveState.load` takes.
        is_all: see there.
        sees: whether it saw the transaction of this number.
        sees_change: the same for the change of a row; parts of a table are read by several statements. `None` for a
            truncation that only some of them saw.
        end_lsn: the end of the WAL after the last statement.
        timeline: that of the server that was read.
    """

    rows: Any
    is_all: bool
    sees: Callable[[int], bool]
    sees_change: Callable[[RowEvent], bool | None]
    end_lsn: int
    timeline: int


class LiveWanted(NamedTuple, Generic[C]):
    """What a live query asks for: of equal keys, one is enough.

    Attributes:
        required: a value that all its documents have; `None` for none.
        make_state: makes the state that changes keep up to date.
        read: the function that reads its rows; the source calls it.
    """

    key: Hashable
    required: RequiredValue | None
    make_state: Callable[[], LiveState[C]]
    read: Any


class PendingRead:
    """A read that is wanted, under way, or not due yet.

    Changes that the stream takes meanwhile wait here, since the read may or may not see them.

    Attributes:
        must_see: the transactions of which the stream had taken changes before it began.
        waiting_bytes: the size of the messages of the changes that wait.
        rows: the rows, once they are read.
    """

    def __init__(self, must_see: tuple[int, ...]) -> None:
        self.must_see = must_see
        self.waiting: list[RowEvent] = []
        self.waiting_bytes = 0
        self.rows: LiveRows | None = None

    @property
    def has_room(self) -> bool:
        """Whether more changes may wait. Once the rows are there, only few do."""
        is_full = len(self.waiting) >= MOST_WAITING or self.waiting_bytes >= MOST_WAITING_BYTES
        return self.rows is not None or not is_full


class SharedQuery(Generic[C]):
    """A result that is kept up to date, and the handles that follow it. The lock of its source guards it.

    Attributes:
        wanted: what it was made of.
        state: the result.
        read: a read that is not due yet, or `None`. Until it is due, the handles keep the result of the former place.
        is_stale: whether changes were missed, so that a read must replace everything.
        not_before: when to read next, by the source's clock.
        pause_s: how long to wait if the next read is too early.
        inboxes: those of its handles.
        is_current: whether what is shown is the result at the place of the source. Inside a transaction, the state may
            be ahead of that: after a truncation, it needs no read any more.
        is_touched: whether the next commit may change what is shown.
    """

    def __init__(self, wanted: LiveWanted[C]) -> None:
        self.wanted = wanted
        self.state: LiveState[C] = wanted.make_state()
        self.read: PendingRead | None = None
        self.is_stale = False
        self.not_before = 0.0
        self.pause_s = EARLY_S
        self.inboxes: dict[LiveInbox[C], None] = {}
        self.is_current = False
        self.is_touched = False

    @property
    def can_commit(self) -> bool:
        """Whether the state is the result where the changes have come to."""
        return self.read is None and not self.is_stale and not self.state.needs_read

    def apply(self, change: RowEvent) -> None:
        """Apply a change, and let it wait for the read, if there is one."""
        if self.read is not None:
            self.read.waiting.append(change)
            self.read.waiting_bytes += _size_of(change)
        self._apply(change)

    def _apply(self, change: RowEvent) -> None:
        if change.before is None and change.after is None:
            is_touched = self.state.clear(change.event)
        else:
            is_touched = self.state.apply(change.before, change.after, change.event)
        self.is_touched = self.is_touched or is_touched

    def load(self) -> bool:
        """Take the rows of the read, which is due, and the changes that it has not seen.

        Returns:
            Whether that has worked. Else it must be read again.
        """
        read, self.read = self.read, None
        if read is None or read.rows is None:
            return False
        seen = list(map(read.rows.sees_change, read.waiting))
        if None in seen:
            return False
        self.state.load(read.rows.rows, is_all=read.rows.is_all)
        for change, is_seen in zip(read.waiting, seen, strict=True):
            if not is_seen:
                self._apply(change)
        self.is_touched, self.is_stale = True, False
        state: Any = self.state
        if state.needs_read and isinstance(state, LiveWindow):
            state.widen()
        return True

    def commit(self, place: LivePlace) -> None:
        """Show the result at this place to all handles."""
        was_current, self.is_touched, self.is_current = self.is_current, False, True
        changes = self.state.commit()
        if not was_current:  # some handles wait for that, to begin or to go on
            for inbox in self.inboxes:
                inbox.wake()
        if changes:
            batch = LiveBatch(changes, place, sum(map(_size_of, changes)))
            for inbox in self.inboxes:
                inbox.put(batch)


def _size_of(change: Any) -> int:
    return 0 if change.event is None else len(change_of(change.event).row.message)
