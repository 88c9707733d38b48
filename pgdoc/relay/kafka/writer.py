"""Writes a log into Kafka, each window with its position in one transaction: experimental, and at least once.

By Kafka's documentation a reader of committed messages sees each window once, and a relay that goes on has ended the
transactions of the one before it. Neither was tried on a broker: the one that librdkafka simulates knows no aborted
messages, and lets a former relay go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import LogRefused, LogUnreachable
from pgdoc.relay.config import LogConfig
from pgdoc.relay.durations import number_of, seconds_of, size_option
from pgdoc.relay.kafka.calls import KafkaCalls
from pgdoc.relay.kafka.connection import KafkaClients, kafka_errors, mapped_error
from pgdoc.relay.kafka.position import CONFIG_KEY, POSITION_KEY, KafkaPosition, read_position
from pgdoc.relay.log import LogEnd
from pgdoc.relay.partitions import EVERY

from confluent_kafka import KafkaError, KafkaException, Producer  # isort: skip (its absence was reported above)
from confluent_kafka.cimpl import NewTopic  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.relay.messages import LogMessage, Window
    from pgdoc.relay.targets import LogTarget

__all__ = ["KafkaWriter"]

_LAYOUT: Final = "partition"
_LIMIT: Final = 900_000  # of a body: brokers take messages of a mebibyte, and the client of a million bytes
_CONFIRM_S: Final = 60.0  # brokers do not wait for their disks: Linux writes back what is 30 seconds old


class KafkaWriter:
    """See `LogWriter`."""

    def __init__(self, target: LogTarget) -> None:
        self._clients = KafkaClients(target)
        self._replicas = number_of(target, "replicas", least=1, most=100) or -1
        self._wished = size_option(target, "max_message") or _LIMIT
        given = seconds_of(target, "confirm_after")
        self.confirm_after_s = _CONFIRM_S if given is None else given
        self.limit = 0
        self._sequence = 0  # after all that was sent
        # Used in the thread alone.
        self._calls: KafkaCalls | None = None
        self._producer: Producer | None = None
        self._position = KafkaPosition()
        self._partitions = 0
        self._refusal: KafkaError | None = None  # of a message of the window

    async def open(self, config: LogConfig) -> LogEnd:
        """See `LogWriter`."""
        position = await self._run(lambda: self._open(config))
        self._sequence = position.sequence
        return LogEnd(position.sequence, position.token, position.part, position.identity, position.before)

    def _run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a call in the thread; calls run in their order."""
        if self._calls is None:
            self._calls = KafkaCalls()
        return asyncio.wrap_future(self._calls.submit(call))

    def _open(self, config: LogConfig) -> KafkaPosition:
        clients = self._clients
        self._end_producer()
        with kafka_errors(clients.shown):
            self._make_topics(config.partitions)
            producer = self._producer = clients.producer(self._wished)
            producer.init_transactions(clients.timeout_s)  # ends what a former relay has begun
        position = read_position(clients)
        wanted = config.of_engine(limit=self._wished, layout=_LAYOUT)
        if position.config is None:
            if position.sequence:
                raise LogRefused(
                    f"{clients.positions} has lost its configuration: delete both topics", reason="foreign"
                )
            position = KafkaPosition(wanted.text, identity=uuid.uuid4().hex)
            self._commit([], position, is_new=True)
        found = LogConfig.parse(position.config, clients.shown)
        wanted.of_engine(limit=found.limit, layout=_LAYOUT).check(found, clients.shown)
        self.limit, self._partitions, self._position = found.limit, found.partitions, position
        return position

    def _make_topics(self, partitions: int) -> None:
        """Create the topics that do not exist; the log's must have as many partitions as the relay."""
        clients, admin = self._clients, self._clients.admin()
        topics = admin.list_topics(timeout=clients.timeout_s).topics
        wanted = {
            clients.topic: NewTopic(clients.topic, partitions, self._replicas),
            clients.positions: NewTopic(clients.positions, 1, self._replicas, config={"cleanup.policy": "compact"}),
        }
        missing = [topic for name, topic in wanted.items() if name not in topics]
        for future in admin.create_topics(missing).values() if missing else ():
            try:
                future.result(clients.timeout_s)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        count = len(topics[clients.topic].partitions) if clients.topic in topics else partitions
        if count != partitions:
            raise LogRefused(
                f"{clients.shown} has {count} partitions, and the relay {partitions}: give both the same number",
                reason="config",
            )

    async def send(self, window: Window) -> int:
        """See `LogWriter`."""
        base = self._sequence
        self._sequence = base + len(window)
        await self._run(lambda: self._send(window, base))
        return base + len(window)

    def _send(self, window: Window, base: int) -> None:
        if self._producer is None or self._position.sequence != base:
            raise LogUnreachable(f"{self._clients.shown}: a window before this one was not stored")
        position = self._position.after(window)
        self._commit(window, position)
        self._position = position

    def _commit(self, window: Window, position: KafkaPosition, *, is_new: bool = False) -> None:
        """Store messages and the position after them in one transaction."""
        producer, clients = self._producer, self._clients
        assert producer is not None  # noqa: S101 (the callers' condition)
        self._refusal = None
        try:
            with kafka_errors(clients.shown):
                producer.begin_transaction()
                for sequence, message in enumerate(window, self._position.sequence + 1):
                    self._produce(sequence, message)
                if is_new:
                    self._put(clients.positions, 0, CONFIG_KEY, (position.config or "").encode())
                self._put(clients.positions, 0, POSITION_KEY, position.record)
                producer.commit_transaction(clients.timeout_s)
        except Exception as exc:
            self._end_producer()
            if self._refusal is not None:
                raise mapped_error(clients.shown, self._refusal) from exc
            raise

    def _produce(self, sequence: int, message: LogMessage) -> None:
        headers = [
            ("sequence", str(sequence).encode()),
            ("token", message.token.encode()),
            ("collection", message.collection.encode(errors="surrogatepass")),
            ("type", message.event_type.encode()),
        ]
        if message.part is not None:
            headers.append(("part", b"%d/%d" % message.part))
        if message.traceparent is not None:
            headers.append(("traceparent", message.traceparent.encode()))
        key = None if message.document_id is None else message.document_id.encode(errors="surrogatepass")
        # An event of a whole collection is in every partition, between the events that are before and after it.
        partitions = range(self._partitions) if message.partition == EVERY else (message.partition,)
        for partition in partitions:
            self._put(self._clients.topic, partition, key, message.body, headers=headers)

    def _put(
        self, topic: str, partition: int, key: bytes | None, value: bytes, *, headers: list[Any] | None = None
    ) -> None:
        producer = self._producer
        assert producer is not None  # noqa: S101 (the callers' condition)
        while True:
            try:
                producer.produce(topic, value, key, partition=partition, headers=headers or [], on_delivery=self._note)
            except BufferError:  # the client's queue is full
                producer.poll(0.1)
            else:
                return

    def _note(self, error: KafkaError | None, _: Any) -> None:
        if error is not None and self._refusal is None:
            self._refusal = error

    def _end_producer(self) -> None:
        """Drop the producer. Its transaction is ended by the next one's `init_transactions`, or by its time-out."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaException):
                producer.purge()

    async def check(self, sequence: int) -> None:
        """See `LogWriter`. Brokers go back only after an unclean election, which is not looked for."""
        if self._producer is None or self._position.sequence < sequence:
            raise LogUnreachable(f"{self._clients.shown} must be opened again")

    async def close(self) -> None:
        """See `LogWriter`."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.submit(self._end_producer)
            calls.end()
