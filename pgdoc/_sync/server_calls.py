# Written by .ci/twins.py from pgdoc/_async/server_calls.py: change that file, and run it.
"""The calls of a store about its server: consumers, history, status and the version of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc._sync.waiting import ConsumerWait, fetch_now
from pgdoc.database.migrate import migrate
from pgdoc.model.names import check_consumer
from pgdoc.runtime.primitives import call
from pgdoc.streams.bookmarks import begin_history
from pgdoc.streams.options import StreamOptions, make_selection
from pgdoc.streams.patience import TIMEOUT_S, check_lsn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from pgdoc._sync.admin import Admin
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.model.positions import Lsn
    from pgdoc.streams.status import ConsumerStatus, History, Status

__all__ = ["ServerCalls"]


class ServerCalls:
    """What a store reports and sets in its server; the store inherits these calls."""

    _conninfo: str
    _streams: StreamBackend
    _admin: Admin

    def consumers(self) -> list[ConsumerStatus]:
        """Return the status of each durable consumer of the database."""
        return self._admin.consumers()

    def create_consumer(
        self,
        name: str,
        *names: str,
        where: Mapping[str, Any] | None = None,
        tables: bool = False,
        topics: Sequence[str] | None = None,
        snapshot: bool = False,
    ) -> bool:
        """Create a durable consumer without opening it, so that it misses nothing that is committed after this call.

        Call it in a migration, or before the processes that open the consumer start. Several processes may call it at
        once. A consumer that exists stays as it is, and a process that has it open is not disturbed. If its slot was
        lost while nobody had it open, the call makes the slot again from history.

        The names, `where`, `tables` and `topics` are those of the later `watch`. They are checked as `watch` checks
        them, and missing collections are created, but they are not stored: pass the same again when the consumer is
        opened.

        Args:
            name: its name.
            *names: the collections and tables that it is to read; none for all collections.
            where: the filter of its events.
            tables: without names, all watched tables as well.
            topics: as for `watch`.
            snapshot: whether it begins with the documents that exist when it is first opened, with `snapshot=True`.

        Returns:
            Whether it was created now. It was not if it exists.

        Raises:
            InvalidFilter: `where` is not a filter, or uses a field that events do not have.
            CollectionNotFound: a collection does not exist, and the store does not create it.
            TableRefused: a table is not watched.
            ValueError: `tables` is true, and there are names.
            ConsumerLost: the consumer exists and reads another schema.
            ConsumerBusy: another process has been creating it for a minute.
            HistoryLost: the consumer exists, and its position is lost.
            InvalidResumeToken: the consumer exists, has not finished its snapshot, and `snapshot` is false.
            ReplicationUnavailable: the server or the role is not set up for streams; the message says what to do.
            SlotBlocked: the first slot of the database has to wait for open transactions.
            ReplicaIdentityChanged: a table's changes have no before images.
        """
        options = StreamOptions.of_consumer(
            check_consumer(name), where=where, snapshot=snapshot, codec=self._streams.codec
        )
        selection = make_selection(names, options.where, tables=tables, topics=topics)
        return self._admin.create_consumer(selection, options)

    def drop_consumer(self, name: str, *, unused_for: timedelta | None = None) -> bool:
        """Drop a durable consumer with its slot, which then holds back no more WAL.

        Args:
            name: its name.
            unused_for: drop it only if no process has had it open for so long, to within an hour.

        Returns:
            Whether it was dropped. It was not if it does not exist, or was in use later than `unused_for` ago.

        Raises:
            ConsumerBusy: a process has it open.
            ValueError: `unused_for` is negative.
        """
        return self._admin.drop_consumer(check_consumer(name), unused_for)

    def recreate_consumer(self, name: str, *, snapshot: bool = False) -> Lsn:
        """Let a durable consumer that nobody has open begin anew, from now: one that lost its position, for example.

        It gets none of the events that it has not acknowledged so far, so what it feeds has to be rebuilt. It keeps
        its name and its schema.

        Args:
            name: its name.
            snapshot: whether it begins with the documents that exist when it is opened.

        Returns:
            The position after which it begins.

        Raises:
            ConsumerBusy: a process has it open.
            ConsumerNotFound: there is no such consumer.
            ReplicationUnavailable: the server or the role is not set up for streams.
            SlotBlocked: its new slot has to wait for open transactions.
        """
        return self._admin.recreate_consumer(check_consumer(name), snapshot=snapshot)

    def skip(self, consumer: str, *, commit_lsn: Lsn | str) -> None:
        """Let a durable consumer pass one transaction with a change that it can't read.

        Its stream has raised `UnreadableChange`. Opened again, it gets the changes that the transaction made to other
        collections, and goes on. The table `pgdoc.unreadable` keeps a record of what was passed.

        Args:
            consumer: its name.
            commit_lsn: the `commit_lsn` of that error.

        Raises:
            ConsumerNotFound: there is no such consumer.
            StreamError: the consumer has met no such transaction.
            InvalidInput: `commit_lsn` is not an LSN.
        """
        self._admin.skip(check_consumer(consumer), commit_lsn)

    def now(self) -> Lsn:
        """Return an LSN behind everything that was committed before the call.

        Each such transaction has a lower commit LSN. `wait_for` waits until a consumer has passed it.

        Raises:
            ServerUnreachable: the server is a standby, which does not know what was committed.
        """
        return fetch_now(self._streams)

    def wait_for(
        self,
        consumer: str,
        lsn: Lsn | str | None = None,
        timeout: float | None = TIMEOUT_S,  # noqa: ASYNC109 (the contract's)
    ) -> None:
        """Wait until a durable consumer, which any process may have open, has passed `lsn`.

        It has passed it when every event that it wants of the transactions whose commit LSN is lower was acknowledged,
        or checkpointed in a transaction that has committed. A consumer that keeps up takes milliseconds.

        Args:
            consumer: its name.
            lsn: from `now()`; by default everything that was committed before the call.
            timeout: seconds to wait; `None` waits as long as it takes, also for a server that is away.

        Raises:
            WaitTimeout: the consumer has not passed it in time; the error says how far it is, and who has it open.
            ConsumerNotFound: there is no such consumer.
            InvalidInput: `lsn` is not an LSN.
            InvalidResumeToken: `lsn` lies beyond the end of the server's WAL.
            HistoryLost: the consumer's position belongs to a database of which this one is a copy.
            ServerUnreachable: the server is a standby.
        """
        wanted = None if lsn is None else check_lsn("lsn", lsn)
        ConsumerWait(self._streams, self._admin, check_consumer(consumer), timeout).until(wanted)

    def history(self) -> History:
        """Return how far back streams can resume in this database, and how much WAL that holds back."""
        return self._admin.history()

    def set_history(self, time: timedelta | None = None, size: int | None = None) -> None:
        """Set how much history the database keeps: the WAL from which streams resume.

        On a server without `max_slot_wal_keep_size`, this call also makes history stay when no store streams.

        Args:
            time: keep at least this much, as far as `size` allows; `None` leaves it as it is.
            size: hold back at most this many bytes of WAL; `None` leaves it as it is.

        Raises:
            ValueError: `time` or `size` is negative.
        """
        self._admin.set_history(time, size)

    def status(self) -> Status:
        """Return what the server is, and whether change streams work there."""
        return self._admin.status()

    def migrate(self) -> None:
        """Bring the catalog of the database to the newest version; many processes may call it at once.

        It also begins the history that streams resume from, where the server is set up for streams.
        """
        call(migrate, self._conninfo)
        call(begin_history, self._streams.hub.source)
