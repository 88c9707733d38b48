"""Workers: handlers of events, with retries, dead letters and a clean end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pgdoc._async.store import AsyncStore
from pgdoc._async.worker_check import AsyncWorkerCheck
from pgdoc._async.worker_consumer import AsyncWorkerConsumer
from pgdoc._async.worker_group import AsyncWorkerGroup
from pgdoc._async.worker_log_check import check_log
from pgdoc.errors import InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.model.typed.reader import reader_of
from pgdoc.relay.remote_options import check_start
from pgdoc.relay.targets import LogTarget
from pgdoc.runtime.activities import AsyncActivity, Caution, async_catch_signals
from pgdoc.runtime.primitives import async_sleep
from pgdoc.workers.registration import Registration, async_check_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgdoc._async.lane import AsyncLane
    from pgdoc.workers.figures import HandlerStatus
    from pgdoc.workers.findings import WorkerFinding

    HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])

__all__ = ["AsyncWorker"]

logger = logging.getLogger("pgdoc.worker")

BATCH = 100
POLL_S = 0.1
_GRACE_S = 5.0  # beyond the deadline, for what follows the handlers: to store positions, and to close streams


class AsyncWorker:
    """Calls handlers for events until it is told to stop.

    Each handler has its own queue, retries and position, so one that fails or takes long does not hold up the others.
    Processes that run the same worker stand by for each other.

    Args:
        store: handlers write into it, and its server has the events.
        log: the URL of a log that a relay writes, such as `nats://host/ORDERS`, if the events are to come from there.
            `consumer=` of a handler then names a group: the processes that run the worker, on any machine, divide the
            partitions of the log among them, and each handler has its own position in each partition. The store can be
            another database than that of the events. Needs the extra of the engine.
        start: with `log`: where a new group begins, `now` or at the `beginning` of the log.
        hang_after: how many seconds a call may take until the worker reports that it hangs.
        shutdown_timeout: how many seconds handlers may take to end their batch when the worker stops. Then it is rolled
            back.

    Raises:
        TypeError: `store` is not an `AsyncStore`.
        ValueError: a number of seconds is not positive.
        InvalidInput: `log` is not the URL of a log, or `start` is something else.
    """

    def __init__(
        self,
        store: AsyncStore,
        *,
        log: str | None = None,
        start: str = "now",
        hang_after: float = 60.0,
        shutdown_timeout: float = 30.0,
    ) -> None:
        if not isinstance(store, AsyncStore):
            raise TypeError(f"store must be of type AsyncStore, got {short_repr(store)}")
        for name, value in (("hang_after", hang_after), ("shutdown_timeout", shutdown_timeout)):
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise ValueError(f"{name} must be a positive number of seconds, got {short_repr(value)}")
        self.store = store
        self._log = None if log is None else LogTarget.parse(log)
        self._start = check_start(start)
        self.shutdown_timeout = shutdown_timeout
        self._hang_after_s = hang_after
        self._registrations: dict[str, list[Registration]] = {}  # by consumer
        self._consumers: list[AsyncWorkerConsumer] | list[AsyncWorkerGroup] = []
        # Set by signal handlers, which may take no lock; `run` polls it.
        self._stop_count = 0
        self._is_running = False

    def on(  # noqa: PLR0913 (the contract)
        self,
        *names: str,
        consumer: str,
        where: Mapping[str, Any] | None = None,
        tables: bool = False,
        topics: Sequence[str] | None = None,
        snapshot: bool = False,
        batch: int = BATCH,
        retries: int | None = 5,
        on_dead: str = "continue",
        name: str | None = None,
        model: Any = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Decorate a handler, which is called with events of these collections, tables and topics.

        The names of its parameters say what it takes:

        - `(tx, events)`: a transaction and a list. What it writes in the transaction commits together with the
          position, exactly once.
        - `(tx, event)`: the same, called once for each event; the events of a batch share a transaction.
        - `(events)` or `(event)`: no transaction. The position is stored after the call, so an event comes again if
          the process ends in between: at least once.

        An exception rolls the transaction back, and the events are tried again after a random delay that grows up to a
        minute. A batch that fails twice is taken apart until the event that fails stands alone. After its retries, that
        event is stored as a dead letter (see `store.dead_letters`), and the handler goes on. Serialization failures and
        deadlocks are tried again at once, and a server that is away is waited for; neither counts.

        Args:
            *names: as for `store.watch`; none for all collections.
            consumer: the name of the durable consumer. Handlers may share one: they share its slot, and each has its
                own position.
            where: a filter on events, as for `store.watch`.
            tables: without names, all watched tables as well.
            topics: of events that applications publish, as for `store.watch`.
            snapshot: begin a new consumer with the documents that exist. Such a handler needs a consumer of its own.
            batch: the most events in one call, or in one transaction.
            retries: how often an event is tried again; `None` for ever.
            on_dead: what becomes of later events of a document of which an event is a dead letter: `continue` to handle
                them, or `park` them behind it, in order.
            name: of the handler, by default that of the function. Its position and its dead letters are stored under
                the name, so a handler that gets another name begins where the consumer stands.
            model: what the data of the documents is read as, as for `store.collection`. Data that is not valid raises
                `InvalidModel` where the handler reads it.

        Raises:
            TypeError: the function is not a handler: of the wrong kind, or with other parameters.
            ValueError: an option is invalid, the consumer has a handler of this name, or a handler with `snapshot` does
                not have its consumer for itself.
            InvalidFilter: `where` is not a filter.
            InvalidName: a name is invalid.
            InvalidInput: `model` is not a model, or its library can't read it.
            MissingExtra: the library that reads the model is not installed.
        """

        def register(function: HandlerT) -> HandlerT:
            async_check_handler(function)
            codec = self.store._connections.codec  # noqa: SLF001 (one package)
            registration = Registration.checked(
                function,
                names,
                encoder=codec.encoder,
                reader=None if model is None else reader_of(model, codec.decode),
                consumer=consumer,
                where=where,
                tables=tables,
                topics=topics,
                snapshot=snapshot,
                batch=batch,
                retries=retries,
                on_dead=on_dead,
                name=name,
            )
            self._register(registration)
            return function

        return register

    def _register(self, registration: Registration) -> None:
        if self._is_running:
            raise ValueError("the worker is running: register handlers before")
        if self._log is not None and registration.snapshot:
            raise ValueError("a log has no snapshot: relay with snapshot=True, and begin at start='beginning'")
        others = self._registrations.get(registration.consumer, [])
        if any(each.name == registration.name for each in others):
            raise ValueError(
                f'consumer "{registration.consumer}" has a handler "{registration.name}" already: pass another name='
            )
        if others and (registration.snapshot or others[0].snapshot):
            raise ValueError(
                f'consumer "{registration.consumer}" can\'t be shared, because a handler has snapshot=True: use a '
                "consumer for each"
            )
        self._registrations[registration.consumer] = [*others, registration]

    async def declare(self) -> list[str]:
        """Create the consumers that do not exist, so that nothing written from now on is missed.

        Call it in a migration or a deploy, before the first event that a handler must see. Running it again changes
        nothing.

        Returns:
            The names of the consumers that were created.

        Raises:
            PgdocError: as for `store.create_consumer`.
            InvalidInput: the worker reads a log, whose groups begin when the first process joins them.
        """
        if self._log is not None:
            raise InvalidInput("a group of a log begins when its first process joins it: there is nothing to declare")
        created = []
        for each in self._make_consumers():
            options = each.options()
            names = options.pop("names")
            if await self.store.create_consumer(each.name, *names, **options):
                created.append(each.name)
        return created

    async def check(self) -> list[WorkerFinding]:
        """Check whether the worker can run, without running a handler, or creating or changing anything.

        It looks at the server, the catalog, the rights of the store's role, the consumers, and the collections and
        tables of the handlers. It opens a stream for a moment.

        Returns:
            What it finds: a worker with a finding whose verdict is `wrong` can't run. That the server can't be reached
            is a finding, too.

        Raises:
            StoreClosed: the store is closed.
        """
        if self._log is not None:
            return await check_log(
                self.store, self._log, [each for them in self._registrations.values() for each in them]
            )
        return await AsyncWorkerCheck(self.store, self._make_consumers()).run()

    @property
    def consumers(self) -> list[str]:
        """The names of the consumers of its handlers."""
        return list(self._registrations)

    @property
    def is_running(self) -> bool:
        """Whether `run` was called, and has not returned."""
        return self._is_running

    def status(self) -> list[HandlerStatus]:
        """Return what each handler does, and what it has done in this process."""
        return [figures.status() for each in self._consumers for figures in each.figures]

    def _lanes(self) -> list[AsyncLane]:
        """Return what runs its handlers, with consumers of the store."""
        consumers = [each for each in self._consumers if isinstance(each, AsyncWorkerConsumer)]
        return [lane for each in consumers for lane, _ in each._lanes]  # noqa: SLF001 (one package)

    def stop(self) -> None:
        """Let `run` end: each handler ends its batch, or rolls it back after `shutdown_timeout`.

        Any thread may call it, and a handler, too. A second call does not wait for handlers any more.
        """
        self._stop_count += 1

    async def run(self) -> None:
        """Call the handlers until SIGTERM, SIGINT or `stop`.

        Only the main thread gets signals. On an event loop, those that the program handles itself, as uvicorn does, are
        left to it. Call `stop` in these cases.

        Raises:
            ValueError: there are no handlers, or the worker runs already.
            PgdocError: a consumer can't be opened, and trying again would not help. The others are ended first.
        """
        if self._is_running:
            raise ValueError("the worker is running already")
        if not self._registrations:
            raise ValueError("the worker has no handlers: decorate functions with @worker.on(...)")
        self._is_running = True
        self._consumers = self._make_consumers() if self._log is None else self._make_groups(self._log)
        for each in self._consumers:
            each.count()
        try:
            with async_catch_signals(self.stop):
                await self._run()
        finally:
            for each in self._consumers:
                each.close()
            self._is_running, self._stop_count = False, 0  # here: a `stop` before `run` counts

    def _make_consumers(self) -> list[AsyncWorkerConsumer]:
        caution = Caution()
        return [
            AsyncWorkerConsumer(
                self.store,
                name,
                registrations,
                hang_after_s=self._hang_after_s,
                shutdown_s=self.shutdown_timeout,
                caution=caution,
            )
            for name, registrations in self._registrations.items()
        ]

    def _make_groups(self, log: LogTarget) -> list[AsyncWorkerGroup]:
        caution = Caution()
        return [
            AsyncWorkerGroup(
                self.store,
                log,
                name,
                registrations,
                start=self._start,
                hang_after_s=self._hang_after_s,
                shutdown_s=self.shutdown_timeout,
                caution=caution,
            )
            for name, registrations in self._registrations.items()
        ]

    async def _run(self) -> None:
        running: list[tuple[AsyncWorkerConsumer | AsyncWorkerGroup, AsyncActivity]] = []
        try:
            for each in self._consumers:
                running.append((each, AsyncActivity(f"pgdoc-worker-{each.name}", each.run)))  # noqa: PERF401 (may fail)
            while not self._stop_count and not any(activity.is_over for _, activity in running):
                await async_sleep(POLL_S)
                for each, _ in running:
                    each.report_hangs()
        finally:
            await self._end(running)
        for _, activity in running:
            if activity.error is not None:
                raise activity.error

    async def _end(self, running: list[tuple[AsyncWorkerConsumer | AsyncWorkerGroup, AsyncActivity]]) -> None:
        deadline = self._stop_all(running, time.monotonic() + (0.0 if self._stop_count > 1 else self.shutdown_timeout))
        is_hurried = self._stop_count > 1
        try:
            while not all(activity.is_over for _, activity in running) and time.monotonic() < deadline + _GRACE_S:
                await async_sleep(POLL_S)
                if self._stop_count > 1 and not is_hurried:
                    is_hurried, deadline = True, self._stop_all(running, time.monotonic())
        except BaseException:  # the run is interrupted while it ends
            self._stop_all(running, time.monotonic())
            raise
        for each, activity in running:
            if not activity.is_over:
                logger.error('consumer "%s" of the worker did not end in time; its thread or task goes on', each.name)

    def _stop_all(
        self, running: list[tuple[AsyncWorkerConsumer | AsyncWorkerGroup, AsyncActivity]], deadline: float
    ) -> float:
        for each, _ in running:
            each.stop(deadline)
        return deadline
