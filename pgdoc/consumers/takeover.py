"""Where a consumer starts when a process becomes its owner, or when the owner comes back to its slot.

1. A new consumer starts now, or at the position that it was given. Its row is stored without a position, then its slot
   is created, then its position is stored. If that is interrupted, the next process that opens the consumer begins
   again. A slot without a row, such as a restored catalog leaves, is used as it is.
2. A known consumer goes on after its stored position, or where its slot stands if that is further: acknowledgements are
   confirmed to the slot seconds before they are stored, and PostgreSQL 15 forgets confirmations in a crash. A slot
   keeps the plugin that it was created with, even if the store uses another; but pgoutput follows wal2json where that
   loses values of a watched table.
   After a failover that server may lack what an open stream was given, or what its checkpoints had stored. Then the
   stream ends: opened again, the consumer goes on after the position that the promoted server has.
3. A slot is created again from a bookmark if it is gone, has lost its WAL, or was moved beyond what is known to be
   needed. The new slot keeps everything unacknowledged, even if the stream was given more. If no bookmark reaches back
   that far, the consumer raises `HistoryLost`, or begins again from now if the user asked for that. It never skips
   events silently.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.consumers.claims import check_schema
from pgdoc.consumers.slots import change_failover, change_plugin, make_slot
from pgdoc.database.slot_losses import cure_of_loss, describe_loss
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import (
    ConsumerLost,
    HistoryLost,
    InvalidResumeToken,
    PgdocError,
    PublicationIncomplete,
    StreamError,
)
from pgdoc.model.positions import BEFORE_ALL, Lsn, before_commits_at
from pgdoc.model.tokens import Mark, SnapshotStage, token_at
from pgdoc.replication.checks import check_exact, check_position, check_published
from pgdoc.replication.source import SlotStart

if TYPE_CHECKING:
    from pgdoc.changes.router import Selection
    from pgdoc.consumers.asked import AskedCheckpoints
    from pgdoc.consumers.claims import ConsumerRow
    from pgdoc.consumers.ownership import Ownership
    from pgdoc.consumers.slots import ConsumerSlot
    from pgdoc.model.positions import RawPosition
    from pgdoc.model.tokens import ResumeToken, SnapshotState
    from pgdoc.replication.source import Cluster, Source

logger = logging.getLogger("pgdoc.consumer")


class StartPoint(NamedTuple):
    """Where a consumer goes on.

    Attributes:
        position: nothing up to it is wanted.
        read_from: the LSN at which reading starts.
        anew: whether events before `position` are lost.
        snapshot: how far it has come at `position`.
        confirmed: up to where the slot is confirmed, if it existed; at `position` the standbys may not have come yet.
    """

    position: RawPosition
    read_from: int
    anew: bool = False
    snapshot: SnapshotState = SnapshotStage.NONE
    confirmed: int | None = None


def went_back(consumer: str, after: ResumeToken) -> HistoryLost:
    """Make the error for a stream that is beyond the end of the server's WAL."""
    return HistoryLost(
        f'consumer "{consumer}" was at {after.lsn}, beyond the end of the server\'s WAL: the server was restored, or '
        "another one was promoted. Open the consumer again to begin at the end of that WAL"
    )


def was_set_back(consumer: str, saved: Lsn, stored: Lsn) -> HistoryLost:
    """Make the error for a stream whose stored position is older than it was, on the same timeline."""
    return HistoryLost(
        f'consumer "{consumer}" had stored {saved} as its position, but the server has {stored}: the server was set '
        "back to an older state. Repair what the consumer did with events that are lost, and open it again: it goes on "
        f"after {stored}"
    )


def was_ahead(consumer: str, exc: InvalidResumeToken, stored: Lsn) -> HistoryLost:
    """Make the error for a stream that was given events which the promoted server does not have."""
    return HistoryLost(
        f'consumer "{consumer}" was given events that this server does not have: {exc}. Repair what it did with them '
        f"outside of the database, and open it again: it goes on after {stored}, where no event is left out"
    )


def lost_checkpoint(consumer: str, at: Lsn, stored: Lsn) -> ConsumerLost:
    """Make the error for a stream with checkpoints that was further than the promoted server is."""
    return ConsumerLost(
        f'consumer "{consumer}" had come to {at}, but this server, which was promoted, has its last checkpoint at '
        f"{stored}: open the consumer again to go on after that"
    )


class Takeover:
    """Finds the position of a consumer, and makes sure that its slot has everything after it.

    Args:
        selection: what the consumer reads.
        recreate: whether to begin again from now if the position is lost.
        snapshot: how far a new consumer's snapshot has come. Unless this is `NONE`, a consumer that begins again also
            begins its snapshot again.
    """

    def __init__(  # noqa: PLR0913 (what a consumer consists of)
        self,
        source: Source,
        ownership: Ownership,
        cluster: Cluster,
        selection: Selection,
        *,
        recreate: bool,
        snapshot: SnapshotState,
    ) -> None:
        self._source = source
        self._ownership = ownership
        self._cluster = cluster
        self._selection = selection
        self._recreate = recreate
        self._snapshot = snapshot

    def enter(self, begin_at: ResumeToken | Lsn | None) -> StartPoint:
        """Take a stored consumer over, or store a new one that begins at `begin_at`; `None` for now."""
        ownership = self._ownership
        row = ownership.find()
        if row is None or row.position is None:
            return self._enter_new(begin_at, is_unknown=row is None)
        check_schema(ownership.name, row, self._source.schema)
        ownership.take_over()
        row = ownership.find() or row  # A checkpoint may have been committed meanwhile.
        start = self._find_slot(token_at(row.position or BEFORE_ALL, row.ids), None)
        return start if start.anew else start._replace(snapshot=row.snapshot)

    def mend(self, row: ConsumerRow) -> None:
        """Make sure that the slot of a stored consumer has everything after its position.

        The claim is not stored where checkpoints check it: a transaction that holds a former owner's may still commit.
        """
        self._find_slot(token_at(row.position or BEFORE_ALL, row.ids), None)

    def go_on(self, after: ResumeToken, needed_from: int) -> StartPoint:
        """Go on after a lost connection, or after the reader was closed because the mailbox was full.

        The stream was given everything up to `after`. The slot has to keep `needed_from`, the commit LSN of the first
        event that is not acknowledged.
        """
        self._ownership.check()
        return self._find_slot(after, needed_from)

    def find_lost(self, after: ResumeToken, asked: AskedCheckpoints, saved: Mark) -> HistoryLost | ConsumerLost | None:
        """Return the error for what the stream was given, or has stored, that the server lacks by now.

        A promoted server may lack some of it, as may one whose disk was set back. `saved` is what was stored last.
        `None` if it lacks nothing, so that the stream can go on.
        """
        if after.system_id != self._cluster.system_id:
            return None
        row = self._ownership.find()
        stored = BEFORE_ALL if row is None or row.position is None else row.position
        if after.timeline == self._cluster.timeline:
            is_back = row is not None and stored < saved.position[:4]
            return was_set_back(self._ownership.name, Lsn(saved.position[0]), Lsn(stored[0])) if is_back else None
        undone = asked.find_undone(stored)
        if undone is not None:
            return lost_checkpoint(self._ownership.name, Lsn(undone.position[0]), Lsn(stored[0]))
        try:
            self._cluster.check(after.position, (after.system_id, after.timeline, after.database_oid))
        except InvalidResumeToken as exc:
            if asked.is_empty:
                return was_ahead(self._ownership.name, exc, Lsn(stored[0]))
            return lost_checkpoint(self._ownership.name, after.lsn, Lsn(stored[0]))
        return None

    def _enter_new(self, begin_at: ResumeToken | Lsn | None, *, is_unknown: bool) -> StartPoint:
        ownership = self._ownership
        position: RawPosition | None = None
        if begin_at is not None:
            inserted, _ = ownership.wal_end()
            position = check_position(begin_at, self._cluster, inserted)
            ownership.flush(position[0])
        ownership.enter(self._cluster)
        try:
            slot = ownership.find_slot() if is_unknown and position is None else None
            if slot is not None and slot.wal_status != "lost":
                position = before_commits_at(slot.confirmed)
                self._flag(slot)
            else:
                self._make_slot(None if position is None else position[0])
                position = position or self._now()
            ownership.settle(Mark(position, self._snapshot), self._cluster)
        except PgdocError:
            with contextlib.suppress(PgdocError):  # What is left has no position: the next process begins again.
                ownership.remove()
            raise
        return StartPoint(position, position[0], snapshot=self._snapshot)

    def _change_plugin(self, slot: ConsumerSlot, read_from: int) -> bool:
        """Have pgoutput read a slot of which wal2json would lose values, if it can; return whether it does now."""
        ownership = self._ownership
        if slot.plugin == "pgoutput" or self._source.plugin != "auto":
            return False
        if not ownership.needs_pgoutput(self._selection, read_from):
            return False
        with ownership.unhurried():
            change_plugin(
                self._source, ownership.slot, "pgoutput", lock_claim=ownership.lock_claim, purpose=ownership.purpose
            )
        logger.info('consumer "%s" is read through pgoutput, since %s loses NaN', ownership.name, slot.plugin)
        return True

    def _make_slot(self, at: int | None) -> None:
        with self._ownership.unhurried():
            ownership = self._ownership
            make_slot(
                self._source,
                ownership.slot,
                at,
                lock_claim=ownership.lock_claim,
                purpose=ownership.purpose,
                check=self._check_sends,
            )

    def _check_sends(self, start: SlotStart) -> None:
        """Refuse to read from where the plugin would leave out changes that the consumer can want."""
        ownership, selection, schema = self._ownership, self._selection, self._source.schema
        if start.plugin == "pgoutput":
            fault = ownership.publication_fault(selection)  # since the stream was opened, which may have been long ago
            if fault is not None:
                raise PublicationIncomplete(f'consumer "{ownership.name}": the publication "pgdoc" {fault}')
            check_published(start.at, ownership.published_since(selection), schema)
        else:
            check_exact(start.at, ownership.exact_since(selection.names), schema)

    def _flag(self, slot: ConsumerSlot) -> None:
        """Make a slot a failover slot, or no longer one, as the store asks for it."""
        ownership = self._ownership
        if slot.is_failover != ownership.wants_failover:
            change_failover(self._source, ownership.slot, on=ownership.wants_failover, purpose=ownership.purpose)

    def _now(self) -> RawPosition:
        inserted, _ = self._ownership.wal_end()
        self._ownership.flush(inserted)  # A position that is not flushed could be lost in a crash.
        return before_commits_at(inserted)

    def _find_slot(self, after: ResumeToken, needed_from: int | None) -> StartPoint:
        """Make sure that the slot has everything after `after`, and what `needed_from` asks for."""
        ownership, position = self._ownership, after.position
        slot = ownership.find_slot()
        if slot is not None and slot.plugin not in PLUGINS:
            raise StreamError(
                f'slot "{ownership.slot}" uses the plugin {slot.plugin}, but pgdoc reads {" or ".join(PLUGINS)}: '
                "drop the slot, and open the consumer again"
            )
        fault = _fault(slot, needed_from)
        try:
            _, flushed = ownership.wal_end()
            check_position(after, self._cluster, flushed)
            if slot is None or fault:
                logger.warning('consumer "%s": its slot "%s" %s', ownership.name, ownership.slot, fault)
                self._make_slot(position.commit_lsn if needed_from is None else needed_from)
                return StartPoint(position, position.commit_lsn)
            self._flag(slot)
            read_from = max(position.commit_lsn, slot.confirmed)
            plugin = "pgoutput" if self._change_plugin(slot, read_from) else slot.plugin
            self._check_sends(SlotStart(read_from, plugin))
        except (HistoryLost, InvalidResumeToken) as exc:
            if not self._recreate:
                raise self._lost(fault, exc, slot) from exc
            return self._begin_anew(exc)
        return StartPoint(max(position, before_commits_at(slot.confirmed)), read_from, confirmed=slot.confirmed)

    def _lost(self, fault: str, exc: PgdocError, slot: ConsumerSlot | None) -> HistoryLost:
        name = self._ownership.name
        is_lost = slot is not None and slot.wal_status == "lost"
        cure = cure_of_loss(slot.reason) if slot is not None and is_lost else ""
        found = f'its slot "{self._ownership.slot}" {fault}, and ' if fault else ""
        return HistoryLost(
            f'consumer "{name}" can\'t go on: {found}{exc}. Rebuild what it feeds, and let it begin anew, from now: '
            f'run `pgdoc consumers recreate {name}`, or open it with on_lost="recreate". If it is not needed any more, '
            f"run `pgdoc consumers drop {name}`" + (f". So that it does not happen again, {cure}" if cure else ""),
            oldest_available=getattr(exc, "oldest_available", None),
        )

    def _begin_anew(self, exc: PgdocError) -> StartPoint:
        self._make_slot(None)
        position = self._now()
        is_wanted = self._snapshot is not SnapshotStage.NONE
        snapshot = SnapshotStage.START if is_wanted else SnapshotStage.NONE
        self._ownership.begin_anew(Mark(position, snapshot), self._cluster)
        logger.error(
            'consumer "%s" begins again at %s and has lost the events before that: %s',
            self._ownership.name,
            Lsn(position[0]),
            exc,
        )
        return StartPoint(position, position[0], anew=True, snapshot=snapshot)


def _fault(slot: ConsumerSlot | None, needed_from: int | None) -> str:
    """Return why a slot can't be used as it is; empty if it can."""
    if slot is None:
        return "is gone"
    if slot.wal_status == "lost":
        return describe_loss(slot.reason)
    is_ahead = needed_from is not None and slot.confirmed > needed_from
    return "was moved on by another process" if is_ahead else ""
