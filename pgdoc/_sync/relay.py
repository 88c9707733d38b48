# Written by .ci/twins.py from pgdoc/_async/relay.py: change that file, and run it.
"""Relays: hand the events of a consumer over to a distributed log, exactly once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._sync.relay_check import check_log_of, check_relay
from pgdoc._sync.relay_session import RelaySession
from pgdoc._sync.relay_windows import Reopen
from pgdoc._sync.store import Store
from pgdoc.database.errors import map_error
from pgdoc.errors import ConsumerLost, HistoryLost, InvalidInput, LogError, LogRefused, PgdocError, StoreClosed
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.engines import READABLE, open_writer
from pgdoc.relay.figures import RelayFigures
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.relay.measures import count_relay
from pgdoc.relay.options import RelayOptions
from pgdoc.relay.targets import LogTarget
from pgdoc.replication.traffic import source_labels
from pgdoc.runtime.activities import catch_signals
from pgdoc.runtime.primitives import sleep, wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgdoc.relay.figures import RelayStatus
    from pgdoc.workers.findings import WorkerFinding

__all__ = ["Relay"]

logger = logging.getLogger("pgdoc.relay")

PARTITIONS = 16
SHUTDOWN_S = 10.0
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
_POLL_S = 0.1


class Relay:
    """Hands the events of a durable consumer over to a log in NATS JetStream, Redis or Kafka.

    The log has each event once, in order. Processes that run the same relay stand by for each other.

    Args:
        store: its server has the events.
        consumer: the name of the durable consumer; it is created if it does not exist.
        to: the URL of the log, such as `nats://host/ORDERS`. What follows `?` are options of its engine.
        *names: as for `store.watch`; none for all collections.
        where: a filter on events, as for `store.watch`.
        tables: without names, all watched tables as well.
        topics: also the events that applications publish under these topics, as for `store.watch`.
        snapshot: begin a new consumer with the documents that exist.
        format: of the messages: `pgdoc` or `cloudevents`, which `RemoteStream` reads, or `debezium`.
        partitions: into how many partitions the documents are divided, for groups of readers. A log keeps the number it
            began with.
        on_lost: what to do when the log lacks events that PostgreSQL no longer keeps, for example because it was put
            back to an older copy, or when an event can't be written as JSON: `raise`, or `continue` without them.

    Raises:
        TypeError: `store` is not an `Store`.
        InvalidInput: the URL or an option is not valid.
        InvalidFilter: `where` is not a filter.
        MissingExtra: the client of the engine is not installed.
    """

    def __init__(  # noqa: PLR0913 (the contract)
        self,
        store: Store,
        consumer: str,
        to: str,
        *names: str,
        where: Mapping[str, Any] | None = None,
        tables: bool = False,
        topics: Iterable[str] | None = None,
        snapshot: bool = False,
        format: str = "pgdoc",  # noqa: A002 (the name in the contract)
        partitions: int = PARTITIONS,
        on_lost: str = "raise",
    ) -> None:
        if not isinstance(store, Store):
            raise TypeError(f"store must be of type Store, got {short_repr(store)}")
        self.store = store
        self.shutdown_timeout = SHUTDOWN_S
        self._target = LogTarget.parse(to)
        if self._target.engine == "webhook":
            raise InvalidInput(f"{self._target.shown} is not a log: send events to it with WebhookRelay")
        self._options = RelayOptions.checked(
            consumer,
            names,
            encoder=store._connections.codec.encoder,  # noqa: SLF001 (one package)
            where=where,
            tables=tables,
            topics=topics,
            snapshot=snapshot,
            format=format,
            partitions=partitions,
            on_lost=on_lost,
        )
        self._writer = open_writer(self._target)
        self._figures = RelayFigures(consumer, self._target.shown)
        source = store._streams.hub.source  # noqa: SLF001 (one package)
        count_relay(self, source_labels(source.conninfo, source.schema), self._figures)
        # Set by signal handlers, which may take no lock; `run` polls it.
        self._stop_count = 0
        self._is_running = False

    @property
    def is_running(self) -> bool:
        """Whether `run` was called, and has not returned."""
        return self._is_running

    def status(self) -> RelayStatus:
        """Return what the relay does, and what it has done in this process."""
        return self._figures.status()

    def check(self) -> list[WorkerFinding]:
        """Check whether the relay can run, without sending an event, or creating or changing anything.

        It looks at the server, the rights of the store's role, the consumer, the collections and tables, and the log.
        It opens a stream for a moment.

        Returns:
            What it finds: a relay with a finding whose verdict is `wrong` can't run. That the engine can't be reached
            is a finding, too.

        Raises:
            StoreClosed: the store is closed.
        """
        return check_relay(self.store, self._options, self._target)

    def stop(self) -> None:
        """Let `run` end, after what was sent is acknowledged. Any thread may call it."""
        self._stop_count += 1

    def run(self) -> None:
        """Relay until SIGTERM, SIGINT or `stop`.

        A server or an engine that is away is waited for. Only the main thread gets signals. On an event loop, those
        that the program handles itself, as uvicorn does, are left to it. Call `stop` in these cases.

        Raises:
            InvalidInput: the relay runs already.
            LogRefused: the log is not one that this relay may write.
            LogGap: the log lacks events that PostgreSQL no longer keeps.
            PgdocError: the consumer can't be opened, and trying again would not help.
        """
        if self._is_running:
            raise InvalidInput("the relay is running already")
        self._is_running = True
        thread = LoopThread(f"pgdoc-relay-{self._options.consumer}")
        try:
            with catch_signals(self.stop):
                self._run(thread)
        finally:
            try:
                wait(thread.submit(self._writer.close()))
            finally:
                thread.close()
                self._figures.state = "closed"
                self._is_running, self._stop_count = False, 0  # here: a `stop` before `run` counts

    def _run(self, thread: LoopThread) -> None:
        delay_s = FIRST_DELAY_S
        self._check_log(thread)
        is_new = self._has_no_consumer()
        while not self._stops():
            session = RelaySession(
                self.store,
                self._options,
                self._target,
                writer=self._writer,
                thread=thread,
                figures=self._figures,
                stops=self._stops,
            )
            try:
                session.run()
            except Reopen:
                delay_s = FIRST_DELAY_S
                continue
            except (PgdocError, psycopg.Error) as exc:
                error = exc if isinstance(exc, PgdocError) else map_error(exc, f'consumer "{self._options.consumer}"')
                if not _can_try_again(error, has_begun=session.has_begun):
                    if is_new and isinstance(error, LogRefused) and not session.has_begun:
                        self._drop_consumer()
                    raise error from exc
                self._note(error)
            else:
                return
            if session.has_begun:
                delay_s, is_new = FIRST_DELAY_S, False
            self._pause(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _check_log(self, thread: LoopThread) -> None:
        """Refuse a log that is not this relay's, before the consumer is created and keeps WAL."""
        if self._target.engine not in READABLE:
            return
        try:
            check_log_of(self.store, self._options, self._target, thread)
        except (PgdocError, psycopg.Error) as exc:
            if isinstance(exc, LogRefused):
                raise
            logger.debug("the log was not checked: %s", exc)  # a session waits for what is away

    def _has_no_consumer(self) -> bool:
        """Whether the consumer does not exist yet, as far as that can be found out."""
        try:
            return all(each.name != self._options.consumer for each in self.store.consumers())
        except (PgdocError, psycopg.Error):
            return False  # a session meets the error, too, or waits

    def _drop_consumer(self) -> None:
        """Drop the consumer that this relay has created for a log that refuses it: it would keep WAL for nobody."""
        try:
            self.store.drop_consumer(self._options.consumer)
        except (PgdocError, psycopg.Error) as exc:
            logger.warning('consumer "%s" was created, and could not be dropped: %s', self._options.consumer, exc)

    def _stops(self) -> bool:
        return self._stop_count > 0

    def _note(self, error: PgdocError) -> None:
        self._figures.error = str(error)
        self._figures.state = "waiting_for_log" if isinstance(error, LogError) else "waiting_for_server"
        logger.warning('the relay of consumer "%s" is interrupted, and tries again: %s', self._options.consumer, error)

    def _pause(self, seconds: float) -> None:
        slept = 0.0
        while slept < seconds and not self._stops():
            sleep(_POLL_S)
            slept += _POLL_S


def _can_try_again(error: PgdocError, *, has_begun: bool) -> bool:
    """Return whether another session may go on: one that lost its position over a failover finds out what to do."""
    if isinstance(error, StoreClosed):
        return False
    return error.resumable or isinstance(error, ConsumerLost) or (has_begun and isinstance(error, HistoryLost))
