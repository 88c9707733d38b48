"""Finds the engine of a URL. The client of an engine is imported only here, when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import InvalidInput

if TYPE_CHECKING:
    from pgdoc.relay.log import LogReader, LogRecords, LogWriter
    from pgdoc.relay.targets import Target

__all__ = ["open_reader", "open_records", "open_writer"]

_READABLE = "use nats://host/STREAM"


def open_writer(target: Target) -> LogWriter:
    """Return the writer of a log; nothing is connected yet.

    Raises:
        MissingExtra: the client of its engine is not installed.
        InvalidInput: the URL lacks something, or has an option that the engine does not know.
    """
    if target.engine == "nats":
        from pgdoc.relay.nats.writer import NatsWriter  # noqa: PLC0415

        return NatsWriter(target)
    raise InvalidInput(f"{target.shown} is not a log")


def open_reader(target: Target) -> LogReader:
    """Return a reader of a log; nothing is connected yet.

    Raises:
        MissingExtra: the client of its engine is not installed.
        InvalidInput: the URL lacks something, or has an option that the engine does not know.
    """
    if target.engine == "nats":
        from pgdoc.relay.nats.reader import NatsReader  # noqa: PLC0415

        return NatsReader(target)
    raise InvalidInput(f"{target.shown} is not a log that can be read: {_READABLE}")


def open_records(target: Target) -> LogRecords:
    """Return the records beside a log; nothing is connected yet.

    Raises:
        MissingExtra: the client of its engine is not installed.
        InvalidInput: the URL lacks something, or has an option that the engine does not know.
    """
    if target.engine == "nats":
        from pgdoc.relay.nats.records import NatsRecords  # noqa: PLC0415

        return NatsRecords(target)
    raise InvalidInput(f"{target.shown} is not a log that a group can read: {_READABLE}")
