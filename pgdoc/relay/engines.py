"""Finds the engine of a URL. The client of an engine is imported only here, when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import InvalidInput

if TYPE_CHECKING:
    from pgdoc.relay.log import LogReader, LogRecords, LogWriter
    from pgdoc.relay.targets import LogTarget

__all__ = ["READABLE", "open_log_reader", "open_records", "open_writer"]

READABLE = ("nats", "redis")
"""The engines whose logs `RemoteStream` reads."""

_READABLE = "use nats://host/STREAM or redis://host/NAME"


def open_writer(target: LogTarget) -> LogWriter:
    """Return the writer of a log; nothing is connected yet.

    Raises:
        MissingExtra: the client of its engine is not installed.
        InvalidInput: the URL lacks something, or has an option that the engine does not know.
    """
    if target.engine == "nats":
        from pgdoc.relay.nats.writer import NatsWriter  # noqa: PLC0415

        return NatsWriter(target)
    if target.engine == "redis":
        from pgdoc.relay.redis.writer import RedisWriter  # noqa: PLC0415

        return RedisWriter(target)
    if target.engine == "kafka":
        from pgdoc.relay.kafka.writer import KafkaWriter  # noqa: PLC0415

        return KafkaWriter(target)
    raise InvalidInput(f"{target.shown} is not a log")


def open_log_reader(target: LogTarget) -> LogReader:
    """Return a reader of a log; nothing is connected yet.

    Raises:
        MissingExtra: the client of its engine is not installed.
        InvalidInput: the URL lacks something, or has an option that the engine does not know.
    """
    if target.engine == "nats":
        from pgdoc.relay.nats.reader import NatsReader  # noqa: PLC0415

        return NatsReader(target)
    if target.engine == "redis":
        from pgdoc.relay.redis.reader import RedisReader  # noqa: PLC0415

        return RedisReader(target)
    raise InvalidInput(f"{target.shown} is not a log that can be read: {_READABLE}")


def open_records(target: LogTarget) -> LogRecords:
    """Return the records beside a log; nothing is connected yet.

    Raises:
        MissingExtra: the client of its engine is not installed.
        InvalidInput: the URL lacks something, or has an option that the engine does not know.
    """
    if target.engine == "nats":
        from pgdoc.relay.nats.records import NatsRecords  # noqa: PLC0415

        return NatsRecords(target)
    if target.engine == "redis":
        from pgdoc.relay.redis.records import RedisRecords  # noqa: PLC0415

        return RedisRecords(target)
    raise InvalidInput(f"{target.shown} is not a log that a group can read: {_READABLE}")
