"""A durable consumer that a stream has open: the thread that owns it, and reads its slot into the stream's mailbox.

1. Whoever owns the consumer (see `ownership`) reads its slot; a standby waits for that, and nothing is read meanwhile.
2. What is confirmed to the slot follows from what was acknowledged (see `changes.acknowledge`), never from what was
   received. What a checkpoint has committed is acknowledged.
3. A mailbox that stays full is not waited for with an open reader, which would hold up a server that stops: the WAL
   keeps the rest, and the consumer stays owned.
4. Where it begins, and what becomes of a slot that is gone or lost its WAL, is decided in `takeover`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from pgdoc.changes.events import ChangeEvent
from pgdoc.changes.router import Router
from pgdoc.consumers.acknowledgements import Marks
from pgdoc.consumers.ownership import HEARTBEAT_S, Ownership, ServerSession
from pgdoc.consumers.slots import find_cluster, open_slot
from pgdoc.consumers.takeover import Takeover, went_back
from pgdoc.errors import ConsumerBusy, ConsumerLost, PgdocError, StoreClosed, StreamError
from pgdoc.model.positions import Lsn, Position, before_commits_at, is_message, just_before
from pgdoc.model.tokens import Mark, ResumeToken
from pgdoc.replication.source import Cluster, Source
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.changes.fanout import Subscription
    from pgdoc.model.positions import RawPosition
    from pgdoc.replication.session import ReplicationSession
    from pgdoc.streams.mailbox import AsyncMailbox, Mailbox

logger = logging.getLogger("pgdoc.consumer")

_READ_S = 0.5
_TELL_S = 0.5
_STANDBY_S = 0.5
_PATIENCE_S = 5.0
_LEAVE_S = 2.0
_HEARTBEAT_LIMIT_S = 10.0
_SAVE_BYTES = 16 << 20
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 5.0


class Consumer:
    """A consumer that a stream has open.

    Args:
        source: what is read.
        name: the consumer's.
        subscription: what the stream wants; its mailbox is fed.
        begin_at: where a new consumer begins; `None` for now.
        wait: whether to be a standby while another process owns the consumer.
        recreate: whether to begin anew, from now, where the consumer's place is lost.
        snapshot: of a consumer that begins: how far it has come, empty where it has to begin, `None` for none.

    Attributes:
        mode: as `StreamStats` has it.
        recreated: how often the consumer was begun anew.
        epoch: of this process's ownership.
        begun_at: the place behind which the stream began.
        snapshot: how far its snapshot had come when it began, or began anew, as `Mark` has it.
    """

    def __init__(  # noqa: PLR0913 (what `watch` was given)
        self,
        source: Source,
        name: str,
        subscription: Subscription,
        *,
        begin_at: ResumeToken | Lsn | None,
        wait: bool,
        recreate: bool,
        snapshot: str | None = None,
    ) -> None:
        self.name = name
        self.mode = "standby"
        self.origin = Cluster(0, 0)
        self.recreated = 0
        self.epoch: int | None = None
        self.begun_at: RawPosition = (0, 0, 0, 0)
        self._source = source
        self._subscription = subscription
        self._router = Router(self._look)
        self._router.add(subscription.selection)
        self._mailbox: Mailbox | AsyncMailbox = subscription.mailbox  # type: ignore[assignment]
        self._begin_at = begin_at
        self._wait = wait
        self._recreate = recreate
        self.snapshot: str | None = None
        self._first_snapshot = snapshot
        self._marks = Marks()
        self._saved: tuple[Mark, str | None] = (Mark(), None)
        self._reached = self._goal = 0
        self._ownership: Ownership | None = None
        self._owns = False
        self._sessions: list[ServerSession] = []
        self._opened: ReplicationSession | None = None
        self._next_heartbeat = self._next_tell = 0.0
        self._closing = threading.Event()
        self._abandoned = False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"pgdoc-consumer-{name}", daemon=True)
        self._process = os.getpid()

    def start(self) -> Future[None]:
        """Start; the result comes when changes are being read, or this is a standby."""
        atexit.register(self.close)
        self._thread.start()
        return self._ready

    @property
    def has_ended(self) -> bool:
        """Whether its thread is gone."""
        return self._ready.done() and not self._thread.is_alive()

    @property
    def ids(self) -> tuple[int, int]:
        """The cluster's system identifier and timeline."""
        return self.origin.system_id, self.origin.timeline

    @property
    def live_place(self) -> RawPosition:
        """The mailbox is told."""
        return (0, 0, 0, 0)

    @property
    def wal_end(self) -> int:
        """The highest LSN heard of."""
        opened = self._opened
        return max(self._reached, self._goal, opened.reader.wal_end if opened else 0)

    def acknowledge(self, mark: Mark) -> None:
        """Note that everything up to there is acknowledged; the server is told within a second."""
        self._marks.acknowledge(mark)

    def pass_over(self, given: Mark, mark: Mark) -> None:
        """Acknowledge everything up to there as soon as all that was given is acknowledged: up to `given`."""
        self._marks.pass_over(given, mark)

    def abandon(self) -> None:
        """End soon; for the garbage collector, which may run in the midst of any lock."""
        self._abandoned = True

    def leave(self) -> None:
        """Let the thread end soon, and drop what was put."""
        atexit.unregister(self.close)
        self._closing.set()
        if os.getpid() != self._process:  # there others may hold its lock for ever
            return
        self._mailbox.close()
        opened = self._opened
        if opened is not None:
            opened.reader.wake()

    def close(self, timeout_s: float = 4.0) -> None:
        """Confirm what was acknowledged and give the consumer up; returns within about `timeout_s`."""
        self.leave()
        if os.getpid() == self._process and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    @property
    def _ends(self) -> bool:
        return self._abandoned or self._closing.is_set() or self._mailbox.closed

    def _run(self) -> None:
        try:
            with deadline_scope(closing=self._closing):
                self._own_and_read()
        except PgdocError as exc:
            self._fail(exc)
        except Exception as exc:  # a fault of ours must reach the stream, not vanish with the thread
            logger.exception("consumer %s failed", self.name)
            error = StreamError(f"the consumer failed: {exc!r}; this is a fault of pgdoc, please report it")
            error.__cause__ = exc
            self._fail(error)
        finally:
            self._leave()

    def _fail(self, error: PgdocError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
        elif isinstance(error, ConsumerLost):
            self._mailbox.cut(error)  # another has begun with what is still there
        elif not self._ends:
            self._mailbox.fail(error)

    def _own_and_read(self) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._ends:
            try:
                if self._own():
                    self._open()
                    delay_s = _FIRST_DELAY_S
                    self._read()
            except PgdocError as exc:
                if not exc.resumable or not self._ready.done() or self._ends:
                    raise
                logger.warning("consumer %s: reconnecting: %s", self.name, exc)
                self.mode = "reconnecting"
                self._disown()
                self._closing.wait(delay_s)
                delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    def _own(self) -> bool:
        """Become the owner, or wait for that a little while; give whether it is."""
        if self._ownership is None:
            self._ownership = Ownership(self._source, self.name)
            for session in self._sessions:  # the server may take them for alive
                self._ownership.end(session)
            self._sessions.append(self._ownership.session)
        if self._owns or self._ownership.own():
            self._owns = True
            del self._sessions[:-1]
            return True
        if self.epoch is not None:
            self._ownership.check(self.epoch)
        elif self._wait:
            if self._begin_at is None:  # should the other give up before there is a consumer, this one begins it here
                self._begin_at = Lsn(self._ownership.wal_end()[0])
            self.mode = "standby"
            self._set_ready()
        else:
            pid = self._ownership.owner_pid()
            raise ConsumerBusy(f'consumer "{self.name}" is open elsewhere (its session is pid {pid})', owner_pid=pid)
        self._closing.wait(_STANDBY_S)
        return False

    def _disown(self) -> None:
        """Let go of sessions that are broken, or must not go on."""
        self._close_reader()
        self._owns = False
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.close()

    def _set_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _open(self) -> None:
        """Open the slot where the consumer is."""
        ownership = self._ownership
        assert ownership is not None  # noqa: S101 (it is owned)
        origin = find_cluster(self._source)
        takeover = Takeover(self._source, ownership, origin, recreate=self._recreate, snapshot=self._first_snapshot)
        if self.epoch is None:
            where = takeover.enter(self._begin_at)
            place = where.place
            self.origin, self.begun_at = origin, place
            self._marks.begun = Mark(place, where.snapshot)
            self.snapshot = where.snapshot
            self.epoch = where.epoch
            self._mailbox.begin_at(place)
            self._subscription.after = just_before(place) if is_message(place) else place  # it may be the last drop
        else:
            after = ResumeToken(Position(*self._subscription.after), *self.ids)
            where = takeover.go_on(self.epoch, after, self._marks.confirmable(after.position.commit_lsn))
            if where.place < self._subscription.after:
                self.epoch = None  # nothing of it is stored: what it was given lies beyond all that is to come
                raise went_back(self.name, after)
            self._subscription.after = where.place
        if where.anew:
            self._marks.begin_anew()
            self.snapshot = where.snapshot
            self.recreated += 1
        _, self._goal = ownership.wal_end()
        self._opened = open_slot(self._source, ownership.slot, where.start)
        self.origin = origin
        self._reached = where.start
        self.mode = "catching_up"
        self._set_ready()

    def _read(self) -> None:
        """Feed the stream until it ends, or its mailbox stays full."""
        opened = self._opened
        assert opened is not None  # noqa: S101 (it was opened)
        reader, decode, feed = opened.reader, opened.decoder.decode, opened.assembler.feed
        while not self._ends:
            frames = reader.read(_READ_S)
            burst = feed(decode(frames))
            selected = self._router.route(burst.changes).get(self._subscription.selection, [])
            left = self._put(selected, burst.reached)
            if left and self._wait_for_room(left, burst.reached):
                break
            self._reached = burst.reached
            if self._reached >= self._goal:
                self.mode = "live"
            elif not frames:
                reader.ask()
            self._look_after()
        if not self._ends:
            self.mode = "catching_up"
            self._close_reader()
            self._has_room(float("inf"))

    def _look(self, change: Change) -> ChangeEvent:
        return ChangeEvent._of(change, self.ids)  # noqa: SLF001 (not for users to make)

    def _put(self, selected: list[Change], reached: int) -> list[Change]:
        wanted = self._subscription.beyond(selected)
        left = self._subscription.put(wanted, before_commits_at(reached))
        self._marks.give(wanted[: len(wanted) - len(left)])
        return left

    def _wait_for_room(self, left: list[Change], reached: int) -> list[Change]:
        """Put the rest as room is made, for some seconds; give what is left."""
        deadline = time.monotonic() + _PATIENCE_S
        while left and self._has_room(deadline):
            left = self._put(left, reached)
        return left

    def _has_room(self, deadline: float) -> bool:
        """Wait until the mailbox has; give `False` where that is not so by the deadline, or the consumer ends."""
        room = Wakeup()
        self._mailbox.call_when_room(room.set)
        self._look_after()
        while not self._ends and time.monotonic() < deadline:
            if room.wait(_READ_S):
                return True
            self._look_after()
        return False

    def _look_after(self) -> None:
        """Tell the server what it may forget, and that this process is there."""
        now = time.monotonic()
        opened = self._opened
        if opened is not None:
            opened.reader.report()
            if now >= self._next_tell:
                self._next_tell = now + _TELL_S
                self._tell(opened)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + HEARTBEAT_S
            self._save()

    def _tell(self, opened: ReplicationSession) -> None:
        opened.reader.confirm(self._marks.confirmable(self._reached))
        opened.reader.report_confirmed()

    def _save(self, save_bytes: int = _SAVE_BYTES) -> None:
        """Store what was acknowledged, where that is news, or R has moved this far with nothing outstanding."""
        ownership, epoch = self._ownership, self.epoch
        if ownership is None or epoch is None:
            return
        with deadline_scope(_HEARTBEAT_LIMIT_S):
            checkpoint = ownership.check(epoch)
            if checkpoint.mark.place > self._marks.checkpointed.place:
                ownership.flush(checkpoint.inserted)  # a crash must not take back what is confirmed to the slot
                self._marks.checkpointed = checkpoint.mark
        confirmable = self._marks.confirmable(self._reached)
        mark = max(self._marks.latest, self._saved[0], key=lambda mark: mark.place)
        news = (mark, self._marks.waiting_since)
        if news[1] is None and mark.snapshot is None and self._reached > mark.place[0] + save_bytes:
            news = (Mark(before_commits_at(self._reached)), None)  # of a quiet consumer in a busy database
        if (news != self._saved or not save_bytes) and ownership.save(epoch, *news, self.origin):
            self._saved = news
            if self._opened is None:
                ownership.advance(confirmable)

    def _close_reader(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.reader.close()

    def _leave(self) -> None:
        """Confirm and store what was acknowledged, and let the next one have the consumer."""
        atexit.unregister(self.close)
        try:
            with deadline_scope(until=time.monotonic() + _LEAVE_S, closing=threading.Event()):
                self._say_the_last()
        except PgdocError as exc:
            logger.info("consumer %s: not all that was acknowledged could be stored: %s", self.name, exc)
        finally:
            self._disown()
            self.mode = "closed"
            if not self._ready.done():
                self._ready.set_exception(StoreClosed("the store is closed: make another to open a stream"))

    def _say_the_last(self) -> None:
        if self._opened is not None:
            try:
                self._tell(self._opened)
            except PgdocError:  # it broke just then: what is stored counts, too
                self._close_reader()
        if self.epoch is not None:
            if self._ownership is None or self._ownership.closed:  # its epoch is enough for storing the last place
                self._ownership = Ownership(self._source, self.name)
            self._save(save_bytes=0)
        if self._opened is not None:
            self._tell(self._opened)
        self._close_reader()
        if self._ownership is not None:
            self._ownership.give_up()
