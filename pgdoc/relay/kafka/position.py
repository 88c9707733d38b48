"""How far a log in Kafka has come: in a topic of its own, written in the same transaction as the messages."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pgdoc.errors import LogRefused, LogUnreachable
from pgdoc.relay.kafka.connection import kafka_errors, mapped_error
from pgdoc.relay.messages import MessagePart

from confluent_kafka import KafkaError, TopicPartition  # isort: skip (its absence was reported by the import above)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Consumer

    from pgdoc.relay.kafka.connection import KafkaClients
    from pgdoc.relay.messages import Window

__all__ = ["CONFIG_KEY", "POSITION_KEY", "KafkaPosition", "read_position"]

CONFIG_KEY: Final = b"config"
POSITION_KEY: Final = b"position"

_BACK: Final = 100  # records that are read from the end at first
_POLL_S: Final = 0.5


class KafkaPosition(NamedTuple):
    """What the topic of positions says.

    Attributes:
        config: what the relay wrote about the log; `None` if it has written nothing.
        sequence, token, part: of the last message.
        identity: of the log.
        before: the token of the event before that of the last message.
    """

    config: str | None = None
    sequence: int = 0
    token: str | None = None
    part: MessagePart | None = None
    identity: str = ""
    before: str | None = None

    def after(self, window: Window) -> KafkaPosition:
        """Return the position after more messages."""
        token, before = self.token, self.before
        for message in window:
            if message.token != token:
                token, before = message.token, token
        return self._replace(sequence=self.sequence + len(window), token=token, part=window[-1].part, before=before)

    @property
    def record(self) -> bytes:
        """What is written to the topic."""
        return json.dumps([self.sequence, self.token, self.part, self.identity, self.before]).encode()


def read_position(clients: KafkaClients) -> KafkaPosition:
    """Read the topic, up to where it ended when this began.

    An answer that takes long must never count as an empty topic: the relay would send everything again.

    Raises:
        LogUnreachable: the brokers did not send all of it in time.
        LogRefused: it has something else.
    """
    consumer = clients.consumer()
    try:
        with kafka_errors(clients.shown):
            first, end = consumer.get_watermark_offsets(TopicPartition(clients.positions, 0), timeout=clients.timeout_s)
            if first == end:
                return KafkaPosition()
            config = next((value for key, value in _records(consumer, clients, first, end) if key == CONFIG_KEY), None)
            return _position(config, _last(consumer, clients, first, end), clients)
    finally:
        consumer.close()


def _last(consumer: Consumer, clients: KafkaClients, first: int, end: int) -> bytes | None:
    """Return the last position, reading further and further back until one is found."""
    back = _BACK
    while True:
        start = max(first, end - back)
        found = None
        for key, value in _records(consumer, clients, start, end):
            if key == POSITION_KEY:
                found = value
        if found is not None or start == first:
            return found
        back *= 10


def _records(consumer: Consumer, clients: KafkaClients, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of the topic from one offset to another."""
    consumer.assign([TopicPartition(clients.positions, 0, start)])
    deadline = time.monotonic() + clients.timeout_s
    while True:
        message = consumer.poll(_POLL_S)
        if message is None:
            if time.monotonic() > deadline:
                raise LogUnreachable(f"{clients.shown}: the brokers have not sent {clients.positions} in time")
            continue
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (its public name)
                if (message.offset() or 0) >= end:
                    return
                continue
            raise mapped_error(clients.shown, error)
        deadline = time.monotonic() + clients.timeout_s
        yield message.key() or b"", message.value() or b""
        if (message.offset() or 0) >= end - 1:
            return


def _position(config: bytes | None, last: bytes | None, clients: KafkaClients) -> KafkaPosition:
    try:
        values: Any = json.loads(last or b"")
        sequence, token, part, identity, before = values
        return KafkaPosition(
            None if config is None else config.decode(),
            sequence,
            token,
            MessagePart(*part) if part else None,
            identity,
            before,
        )
    except (ValueError, TypeError) as exc:
        raise LogRefused(f"{clients.positions} has no position that a relay wrote: {exc}", reason="foreign") from exc
