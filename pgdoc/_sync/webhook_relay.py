# Written by .ci/twins.py from pgdoc/_async/webhook_relay.py: change that file, and run it.
"""Sends events to a webhook: signed, in order per document, at least once."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from pgdoc._sync.worker import Worker
from pgdoc.database.conninfo import database_of
from pgdoc.errors import PgdocError, WebhookGone
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.answers import Meaning, Unanswered, meaning_of, retry_after_s
from pgdoc.relay.debezium import SourceNames
from pgdoc.relay.deliveries import DeliveredEvents, StepOutcome, in_steps
from pgdoc.relay.signing import SECRET_VARIABLE, Secrets
from pgdoc.relay.webhook_requests import Endpoint, WebhookMessages
from pgdoc.relay.webhook_status import (
    WebhookCounts,
    WebhookStatus,
    answer_finding,
    endpoint_finding,
    silence_finding,
)
from pgdoc.runtime.activities import Activity
from pgdoc.streams.options import check_at_least
from pgdoc.workers.failures import EventFailed, Postponed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgdoc._sync.store import Store
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.relay.posting import Poster
    from pgdoc.relay.webhook_requests import WebhookMessage
    from pgdoc.workers.findings import WorkerFinding

__all__ = ["WebhookRelay"]

logger = logging.getLogger("pgdoc.relay")

HANDLER = "webhook"
_BATCH_PER_CONNECTION = 8
_HANGS_AFTER_S = 3600.0  # as long as a receiver may make it wait
_CREW_POLL_S = 60.0
_CALLED_OFF_S = 0.2


class WebhookRelay:
    """Sends the events of a consumer to a webhook until it is told to stop.

    Requests are signed as the Standard Webhooks specification says. An event that fails is sent again after a random
    delay that grows up to a minute, and becomes a dead letter in the end (see `store.dead_letters`). Processes that run
    the same relay stand by for each other. The events of one document are sent one after the other, in their order;
    those of different documents side by side. A receiver gets each event at least once, with the same `webhook-id` each
    time.

    Args:
        store: its server has the events.
        consumer: the name of the durable consumer. It is created when it is missing, by `declare()` or else by `run()`.
        url: of the receiver, such as `https://example.com/hooks`. It may have a user and a password.
        *names: collections and tables, as for `store.watch`; none for all collections.
        where: a filter on events, as for `store.watch`.
        tables: without names, all watched tables as well.
        topics: also the events that applications publish under these topics, as for `store.watch`.
        snapshot: begin a new consumer with the documents that exist.
        format: of the body: `pgdoc`, `cloudevents`, `cloudevents-binary` or `debezium`.
        secrets: what signs the messages: `whsec_` and the base64 of 24 to 64 random bytes. With several, each message
            has several signatures. Without any, the environment variable PGDOC_WEBHOOK_SECRET has them, with spaces
            between.
        retries: how often an event is tried again; `None` for ever.
        on_dead: what becomes of later events of a document of which an event is a dead letter: `park` them behind it,
            in order, or `continue` to send them.
        concurrency: how many requests run side by side at most.
        timeout: how many seconds a request may take.
        max_body: the most bytes in the body of a request. A larger event becomes a dead letter at once.
        ca_file: a file with certificates in PEM to trust instead of those of public authorities.
        shutdown_timeout: how many seconds the events that were begun may take when the relay stops.

    Raises:
        MissingExtra: the extra `webhooks` is not installed.
        InvalidInput: the URL, the format, a secret or `ca_file` is not valid, or there is no secret.
        ValueError: another option is not valid.
        TypeError: `store` is not an `Store`.
    """

    def __init__(  # noqa: PLR0913 (the contract)
        self,
        store: Store,
        consumer: str,
        url: str,
        *names: str,
        where: Mapping[str, Any] | None = None,
        tables: bool = False,
        topics: Sequence[str] | None = None,
        snapshot: bool = False,
        format: str = "pgdoc",  # noqa: A002 (the contract)
        secrets: str | Iterable[str] = (),
        retries: int | None = 10,
        on_dead: str = "park",
        concurrency: int = 8,
        timeout: float = 15.0,
        max_body: int = 16 << 20,
        ca_file: str | None = None,
        shutdown_timeout: float = 30.0,
    ) -> None:
        self._worker = Worker(store, hang_after=_HANGS_AFTER_S, shutdown_timeout=shutdown_timeout)
        self._endpoint = Endpoint.parse(url)
        self._secrets = Secrets.parse(secrets or os.environ.get(SECRET_VARIABLE, ""))
        check_at_least(1, "concurrency", concurrency)
        check_at_least(1, "max_body", max_body)
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout < _HANGS_AFTER_S:
            raise ValueError(
                f"timeout must be a number of seconds above 0 and below {_HANGS_AFTER_S:.0f}, got {short_repr(timeout)}"
            )
        self.store, self.consumer, self.shutdown_timeout = store, consumer, shutdown_timeout
        self._concurrency, self._timeout_s, self._max_body, self._ca_file = concurrency, timeout, max_body, ca_file
        of_source = SourceNames(consumer, database_of(store._conninfo), store._schema)  # noqa: SLF001 (one package)
        self._messages = WebhookMessages(self._endpoint, format, of_source)
        self._poster = self._make_poster()
        self._worker.on(
            *names,
            consumer=consumer,
            where=where,
            tables=tables,
            topics=topics,
            snapshot=snapshot,
            batch=_BATCH_PER_CONNECTION * concurrency,
            retries=retries,
            on_dead=on_dead,
            name=HANDLER,
        )(self._deliver)
        self._counts = WebhookCounts()
        # Written by the lane, and by the threads or tasks that it waits for.
        self._delivered = DeliveredEvents()
        self._open_at = 0.0  # the receiver wants nothing before, on the monotonic clock
        self._gone: WebhookGone | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(consumer={self.consumer!r}, url={self._endpoint.shown!r})"

    def _make_poster(self) -> Poster:
        from pgdoc.relay.posting import Poster  # noqa: PLC0415 (it needs an extra)

        return Poster(self._endpoint, timeout_s=self._timeout_s, connections=self._concurrency, ca_file=self._ca_file)

    def declare(self) -> bool:
        """Create the consumer, if it does not exist, so that nothing written from now on is missed.

        Returns:
            Whether it was created.

        Raises:
            PgdocError: as for `store.create_consumer`.
        """
        return bool(self._worker.declare())

    def check(self) -> list[WorkerFinding]:
        """Check whether the relay can run, without sending an event, or creating or changing anything.

        It checks what `Worker.check` does, and sends a request OPTIONS to the receiver, of which any answer will do.

        Returns:
            What it finds: a relay with a finding whose verdict is `wrong` can't run now.

        Raises:
            StoreClosed: the store is closed.
        """
        found = self._worker.check()
        found.append(endpoint_finding(self._endpoint, self.consumer))
        poster = self._make_poster()
        try:
            answer = poster.send("OPTIONS", b"", self._messages.headers)
        except Unanswered as exc:
            found.append(silence_finding(self._endpoint, str(exc), self.consumer))
        else:
            found.append(answer_finding(self._endpoint, answer, self.consumer))
        finally:
            poster.close()
        return found

    @property
    def is_running(self) -> bool:
        """Whether `run` was called, and has not returned."""
        return self._worker.is_running

    def status(self) -> WebhookStatus:
        """Return what the relay does, and what it has done in this process."""
        of_worker = next(iter(self._worker.status()), None)
        state = "closed" if of_worker is None else of_worker.state
        throttled_s = max(0.0, self._open_at - time.monotonic())
        if self._gone is not None:
            state = "gone"
        elif throttled_s and state == "backing_off":
            state = "throttled"
        return WebhookStatus(
            consumer=self.consumer,
            url=self._endpoint.shown,
            state=state,
            waiting=0 if of_worker is None else of_worker.waiting,
            delivered=self._counts.delivered,
            attempts=self._counts.attempts,
            failures=self._counts.failures,
            dead=0 if of_worker is None else of_worker.dead,
            parked=0 if of_worker is None else of_worker.parked,
            throttled_s=throttled_s,
            last_failure=self._counts.last_failure,
        )

    def stop(self) -> None:
        """Let `run` end: events that were begun are sent, and their position is stored.

        Any thread may call it. A second call does not wait for requests any more.
        """
        self._worker.stop()

    def run(self) -> None:
        """Send events until SIGTERM, SIGINT or `stop`.

        Only the main thread gets signals; elsewhere call `stop`.

        Raises:
            WebhookGone: the receiver answered 410.
            ValueError: the relay runs already.
            PgdocError: the consumer can't be opened, and trying again would not help.
        """
        if self.is_running:
            raise ValueError("the relay is running already")
        self._gone, self._open_at = None, 0.0
        self._poster = self._make_poster()
        try:
            self._worker.run()
        finally:
            self._poster.close()
        if self._gone is not None:
            raise self._gone

    def _deliver(self, events: list[ChangeEvent]) -> None:
        """Handle a batch, as the worker's only handler."""
        if (wait_s := self._open_at - time.monotonic()) > 0:
            raise Postponed(wait_s)
        self._delivered.begin(events)
        for documents in in_steps(events):
            outcome = StepOutcome()
            self._send_all(deque(documents), outcome)
            if outcome.has_ended:
                raise Postponed(None)
            if outcome.wait_s is not None:
                self._open_at = time.monotonic() + outcome.wait_s
                raise Postponed(outcome.wait_s)
            if outcome.failure is not None:
                raise outcome.failure

    def _send_all(self, documents: deque[list[ChangeEvent]], outcome: StepOutcome) -> None:
        """Send the events of documents side by side."""
        size = min(self._concurrency, len(documents))
        if size == 1:
            self._send_next(documents, outcome)
            return
        work = partial(self._send_next, documents, outcome)
        crew = [Activity(f"pgdoc-webhook-{number}", work) for number in range(size)]
        try:
            for each in crew:
                while not each.is_over:
                    each.wait(_CREW_POLL_S)
        except BaseException:  # the lane was called off
            for each in crew:
                each.call_off(None)
            for each in crew:
                each.wait(_CALLED_OFF_S)
            raise
        for each in crew:
            if each.error is not None:
                raise each.error

    def _send_next(self, documents: deque[list[ChangeEvent]], outcome: StepOutcome) -> None:
        """Send the events of one document after the other, until there are no more."""
        while True:
            try:
                events = documents.popleft()
            except IndexError:
                return
            for event in events:
                if self._is_lost():
                    outcome.has_ended = True
                if outcome.is_halted:
                    return
                if event not in self._delivered and not self._send(event, outcome):
                    break  # later events of the document wait behind it

    def _is_lost(self) -> bool:
        """Whether another process may send the events now. At a stop, the batch is sent to its end."""
        lanes = self._worker._lanes()  # noqa: SLF001 (one package)
        is_stopping = self._worker._stop_count > 0  # noqa: SLF001 (one package)
        return any(lane.is_called_off or (lane.ends.is_set() and not is_stopping) for lane in lanes)

    def _send(self, event: ChangeEvent, outcome: StepOutcome) -> bool:
        """Send one event; return whether it was delivered."""
        try:
            message = self._message(event)
            self._counts.begin()
            answer = self._poster.send("POST", message.body, message.signed(self._secrets, int(time.time())))
        except EventFailed as exc:
            outcome.fail(exc)
            return False
        except Unanswered as exc:
            outcome.fail(self._failure(event, str(exc), exc))
            return False
        meaning = meaning_of(answer)
        if meaning is Meaning.DELIVERED:
            self._delivered.add(event)
            self._counts.deliver()
        elif meaning is Meaning.GONE:
            outcome.has_ended = True
            self._end()
        elif meaning is Meaning.LATER:
            outcome.postpone(retry_after_s(answer, time.time()))
            logger.warning("%s: %s; waiting %d s", self._endpoint.shown, answer.text, outcome.wait_s or 0)
        else:
            outcome.fail(self._failure(event, answer.text))
        return meaning is Meaning.DELIVERED

    def _message(self, event: ChangeEvent) -> WebhookMessage:
        try:
            message = self._messages.message(event)
        except PgdocError as exc:
            raise self._failure(event, f"it can't be written: {exc}", exc, is_final=True) from exc
        if len(message.body) > self._max_body:
            said = f"its body has {len(message.body):,} bytes, and max_body is {self._max_body:,}"
            raise self._failure(event, said, is_final=True)
        return message

    def _failure(
        self, event: ChangeEvent, said: str, cause: Exception | None = None, *, is_final: bool = False
    ) -> EventFailed:
        self._counts.fail(said)
        failure = EventFailed(f"{self._endpoint.shown}: {said}", event, is_final=is_final)
        failure.__cause__ = cause
        return failure

    def _end(self) -> None:
        """End the relay, because the receiver wants nothing more."""
        self._gone = WebhookGone(
            f"{self._endpoint.shown} answered 410 Gone: it wants no more events. Give the relay another URL, or drop "
            f'consumer "{self.consumer}", which keeps WAL'
        )
        logger.error("the webhook relay ends: %s", self._gone)
        self._worker.stop()
