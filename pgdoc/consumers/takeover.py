"""Where a consumer begins when a process becomes its owner, or comes back to its slot.

1. A new consumer begins with the call, or at the place it was given. Its row comes first, without a place, then its
   slot, then the place: what is interrupted in between is begun again by the next one. A slot without a row, such as a
   restored catalog leaves, is taken as it stands.
2. A known one goes on behind what was stored of it, or where its slot stands, if that is further: what was
   acknowledged is confirmed to the slot some seconds before it is stored, and PostgreSQL 15 forgets confirmations in a
   crash. Its slot keeps the plugin that it was made with, whatever that of the store is.
3. A slot that is gone, has lost its WAL, or was moved beyond what is known to be needed, is made again from history, if
   that reaches back so far; it keeps what is not acknowledged, also where the stream has been given more. If not, it is
   `HistoryLost`, or the consumer is begun anew where the user said so: never a silent skip.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.consumers.ownership import Ownership, check_schema
from pgdoc.consumers.slots import make_slot
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import HistoryLost, InvalidResumeToken, PgdocError, StreamError
from pgdoc.model.positions import Lsn, Position, before_commits_at
from pgdoc.model.tokens import Mark, ResumeToken
from pgdoc.replication.checks import check_position, check_published

if TYPE_CHECKING:
    from pgdoc.consumers.slots import ConsumerSlot
    from pgdoc.model.positions import RawPosition
    from pgdoc.replication.source import Cluster, Source

logger = logging.getLogger("pgdoc.consumer")


class StartPoint(NamedTuple):
    """Where to go on.

    Attributes:
        epoch: under which checkpoints commit.
        place: everything up to it is not wanted.
        start: the LSN to start reading at.
        anew: whether events before `place` are lost.
        snapshot: how far the snapshot has come there, as `Mark` has it.
    """

    epoch: int
    place: RawPosition
    start: int
    anew: bool = False
    snapshot: str | None = None


def went_back(consumer: str, after: ResumeToken) -> HistoryLost:
    """Make the error for a stream that was further than the server is now."""
    return HistoryLost(
        f'the server\'s WAL no longer reaches to {after.lsn}, where the stream of consumer "{consumer}" was: the '
        "server was restored, or another promoted. The consumer begins anew when it is opened again"
    )


class Takeover:
    """Finds the place of a consumer, and sees to it that its slot has what comes next.

    Args:
        source: what is read.
        ownership: which owns the consumer.
        origin: what cluster this is.
        recreate: whether to begin anew where the place is lost.
        snapshot: of a consumer that begins, or begins anew: `None` where it begins with no snapshot.
    """

    def __init__(
        self, source: Source, ownership: Ownership, origin: Cluster, *, recreate: bool, snapshot: str | None = None
    ) -> None:
        self._source = source
        self._ownership = ownership
        self._origin = origin
        self._recreate = recreate
        self._snapshot = snapshot

    def enter(self, begin_at: ResumeToken | Lsn | None) -> StartPoint:
        """Take over what is stored of a consumer, or store a new one, which begins at `begin_at` or now.

        Raises:
            HistoryLost: the place is lost.
            ConsumerLost: the consumer reads another schema.
        """
        ownership = self._ownership
        row = ownership.find()
        if row is None or row.place is None:
            return self._enter_new(begin_at, is_unknown=row is None)
        check_schema(ownership.name, row, self._source.schema)
        epoch = ownership.take_over()
        row = ownership.find() or row  # a checkpoint may have been committed meanwhile
        where = self._find_slot(epoch, ResumeToken(row.place or Position(0), row.system_id, row.timeline), None)
        return where if where.anew else where._replace(snapshot=row.snapshot)

    def go_on(self, epoch: int, after: ResumeToken, needed_from: int) -> StartPoint:
        """Go on after a lost connection, or a wait.

        Args:
            epoch: of this process's ownership.
            after: the last event that the stream was given.
            needed_from: the commit LSN of the first that is not acknowledged, which the slot has to keep.

        Raises:
            HistoryLost: the place is lost.
            ConsumerLost: another process has taken over.
        """
        self._ownership.check(epoch)
        return self._find_slot(epoch, after, needed_from)

    def _enter_new(self, begin_at: ResumeToken | Lsn | None, *, is_unknown: bool) -> StartPoint:
        ownership = self._ownership
        place: RawPosition | None = None
        if begin_at is not None:
            inserted, _ = ownership.wal_end()
            place = check_position(begin_at, self._origin, inserted)
            ownership.flush(place[0])
        epoch = ownership.enter(self._origin)
        try:
            slot = ownership.find_slot() if is_unknown and place is None else None
            if slot is not None and slot.wal_status != "lost":
                place = before_commits_at(slot.confirmed)
            else:
                self._make_slot(None if place is None else place[0])
                place = place or self._now()
            ownership.settle(epoch, Mark(place, self._snapshot), self._origin)
        except PgdocError:
            with contextlib.suppress(PgdocError):  # the next one that opens it begins again
                ownership.remove()
            raise
        return StartPoint(epoch, place, place[0], snapshot=self._snapshot)

    def _make_slot(self, at: int | None) -> None:
        with self._ownership.unhurried():
            make_slot(self._source, self._ownership.slot, at, purpose=self._ownership.purpose)

    def _now(self) -> RawPosition:
        inserted, _ = self._ownership.wal_end()
        self._ownership.flush(inserted)  # a place that is not flushed could be lost in a crash
        return before_commits_at(inserted)

    def _find_slot(self, epoch: int, after: ResumeToken, needed_from: int | None) -> StartPoint:
        """See to it that the slot has what comes next, and what is needed, where that is known to the last event."""
        ownership, place = self._ownership, after.position
        slot = ownership.find_slot()
        if slot is not None and slot.plugin not in PLUGINS:
            raise StreamError(f'slot "{ownership.slot}" is read through {slot.plugin}, not {" or ".join(PLUGINS)}')
        fault = _fault(slot, needed_from)
        try:
            _, flushed = ownership.wal_end()
            check_position(after, self._origin, flushed)
            if slot is None or fault:
                logger.warning('consumer %s: its slot "%s" %s', ownership.name, ownership.slot, fault)
                self._make_slot(place.commit_lsn if needed_from is None else needed_from)
                return StartPoint(epoch, place, place.commit_lsn)
            start = max(place.commit_lsn, slot.confirmed)
            if slot.plugin == "pgoutput":
                check_published(start, ownership.published_since(), self._source.schema)
        except (HistoryLost, InvalidResumeToken) as exc:
            if not self._recreate:
                raise self._lost(fault, exc) from exc
            return self._begin_anew(epoch, exc)
        return StartPoint(epoch, max(place, before_commits_at(slot.confirmed)), start)

    def _lost(self, fault: str, exc: PgdocError) -> HistoryLost:
        name = self._ownership.name
        found = f'its slot "{self._ownership.slot}" {fault}, and ' if fault else ""
        return HistoryLost(
            f'consumer "{name}" can\'t go on: {found}{exc}. Drop it with `pgdoc consumers drop {name}` and rebuild '
            'what it feeds, or open it with on_lost="recreate" to go on from now',
            oldest_available=getattr(exc, "oldest_available", None),
        )

    def _begin_anew(self, epoch: int, exc: PgdocError) -> StartPoint:
        self._make_slot(None)
        place = self._now()
        snapshot = None if self._snapshot is None else ""
        self._ownership.begin_anew(epoch, Mark(place, snapshot), self._origin)
        at = Lsn(place[0])
        logger.error(
            "consumer %s begins anew at %s, what was before that is lost to it: %s", self._ownership.name, at, exc
        )
        return StartPoint(epoch, place, place[0], anew=True, snapshot=snapshot)


def _fault(slot: ConsumerSlot | None, needed_from: int | None) -> str:
    if slot is None:
        return "is gone"
    if slot.wal_status == "lost":
        return "has lost its WAL"
    return "was moved on by someone else" if needed_from is not None and slot.confirmed > needed_from else ""
