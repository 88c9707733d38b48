"""Finds the engine of a URL. The client of an engine is imported only here, when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import InvalidInput

if TYPE_CHECKING:
    from pgdoc.relay.log import LogWriter
    from pgdoc.relay.targets import Target

__all__ = ["open_writer"]


def open_writer(target: Target) -> LogWriter:
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
    raise InvalidInput(f"{target.shown} is not a log")
