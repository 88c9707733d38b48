"""How the slot of a consumer is read: its own reader, and what follows when the server can't send a change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pgdoc.changes.change import Burst
from pgdoc.changes.registry import TableAdded
from pgdoc.consumers.slots import open_copy, open_slot
from pgdoc.model.positions import Lsn
from pgdoc.replication.detours import find_poison, open_detour, unreadable, wants_any
from pgdoc.replication.routes import STRAIGHT, Route, UnsentChange
from pgdoc.replication.session import read_burst

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.changes.router import Selection
    from pgdoc.consumers.acknowledgements import ConsumerProgress
    from pgdoc.consumers.ownership import Ownership
    from pgdoc.replication.session import ReplicationSession
    from pgdoc.replication.source import Cluster, Source

__all__ = ["SlotReading"]

logger = logging.getLogger("pgdoc.consumer")


class SlotReading:
    """The part of `OwnedSlot` that opens readers and reads."""

    _source: Source
    _selection: Selection
    _ownership: Ownership
    _cluster: Cluster
    _progress: ConsumerProgress
    _session: ReplicationSession
    is_reading: bool
    received: list[Change]

    @property
    def has_caught_up(self) -> bool:
        """See `OwnedSlot`."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """See `OwnedSlot`."""
        raise NotImplementedError

    def read(self, timeout_s: float) -> Burst:
        """Read the next burst; ask the server how far the WAL goes while catching up and nothing arrives.

        Raises:
            TableAdded: the slot has to be read through pgoutput.
            UnreadableChange: the consumer wants a change that can't be read, and was not told to pass it.
        """
        try:
            if self._session.is_used_up:  # the decoder may have read further than what was returned
                self._go_on_at(self._progress.watermark)
            burst, has_frames = read_burst(self._session, timeout_s)
        except TableAdded as exc:
            if exc.needs_pgoutput:  # only a takeover changes the plugin of a slot
                raise
            self._read_again()
            return Burst([], self._progress.watermark, None)
        except UnsentChange as exc:
            self.received = exc.received
            watermark = self._go_around(exc)
            return Burst(exc.received if watermark == exc.until else [], watermark, None)
        if not has_frames and not self.has_caught_up:
            self._session.reader.ask()
        return burst

    def _go_on_at(self, lsn: int) -> None:
        """Read the slot itself again."""
        pid, is_its_reader = self._session.reader.pid, self._session.route is STRAIGHT
        self.stop_reading()
        with self._ownership.unhurried():
            if is_its_reader:
                self._ownership.advance_after(pid, None)
            self._session = self._open(lsn)
        self.is_reading = True

    def _read_again(self) -> None:
        """Read on from the watermark, along the same route."""
        route = self._session.route
        if route is STRAIGHT:
            self._go_on_at(self._progress.watermark)
            return
        self.stop_reading()
        with self._ownership.unhurried():
            self._session = self._open_copy(route)
        self.is_reading = True

    def _go_around(self, unsent: UnsentChange) -> int:
        """Open a detour, or pass the transaction; return the watermark."""
        watermark = self._progress.watermark
        self.stop_reading()
        with self._ownership.unhurried():
            try:
                self._session = open_detour(self._open_copy, self._session, unsent)
            except UnsentChange:
                poison, route = None, STRAIGHT
                if self._session.route.part.only is None:
                    has_topics = bool(self._selection.topics)
                    poison, route = find_poison(
                        self._open_copy, self._selection.collections, unsent, has_topics=has_topics
                    )
                if wants_any(self._selection, poison):
                    self._pass_or_raise(unsent, poison)
                if poison is None:
                    watermark = unsent.until
                    self._session = self._open(watermark)
                else:
                    self._session = self._open_copy(route)
        self.is_reading = True
        return watermark

    def _pass_or_raise(self, unsent: UnsentChange, poison: frozenset[str] | None) -> None:
        name = self._ownership.name
        at = str(Lsn(unsent.place))
        advice = (
            f"Run `pgdoc consumers skip {name}`, or call store.skip({name!r}, commit_lsn={at!r}), and open the "
            "consumer again: it then gets the other changes of that transaction"
        )
        if poison is None:
            advice += " that come before that change; nothing can read the others without wal2json"
        error = unreadable(unsent, poison, f'consumer "{name}"', advice)
        if not self._ownership.note_unreadable(error):
            raise error
        passed = unreadable(unsent, poison, f'consumer "{name}"', "The table pgdoc.unreadable keeps a record")
        logger.error('consumer "%s" passes what it was told to skip: %s', name, passed)

    def _open(self, at: int) -> ReplicationSession:
        ownership = self._ownership
        session = open_slot(
            self._source,
            ownership.slot,
            at,
            ownership.make_standby_check(),
            cluster=self._cluster,
            purpose=ownership.purpose,
        )
        if session.has_wrong_plugin and ownership.needs_pgoutput(self._selection, at):
            session.reader.close()  # a table was changed since the takeover chose
            raise TableAdded("wal2json loses values of a table", needs_pgoutput=True)
        return self._hearing(session)

    def _open_copy(self, route: Route) -> ReplicationSession:
        ownership = self._ownership
        ownership.stay_unhurried()
        session = open_copy(
            self._source,
            ownership.slot,
            self._progress.watermark,
            ownership.make_standby_check(),
            route=route,
            names=self._selection.names,
            cluster=self._cluster,
            purpose=ownership.purpose,
        )
        return self._hearing(session)

    def _hearing(self, session: ReplicationSession) -> ReplicationSession:
        """Let a read return for what the owner's session gets."""
        session.reader.watch(self._ownership.socket)
        return session
