"""Begins to run a handler of a consumer: its row in the catalog fences the process that ran it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg

from pgdoc.consumers.fence import ending_blockers
from pgdoc.consumers.server_errors import map_consumer_error
from pgdoc.errors import ConsumerLost, LogRefused, ServerUnreachable
from pgdoc.replication.connection import connect
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc.consumers.claims import Claim
    from pgdoc.replication.source import Source

__all__ = ["HandlerRow", "begin_handler"]

_LOCK_TIMEOUT_MS = 10_000


class HandlerRow(NamedTuple):
    """Where a handler stands.

    Attributes:
        place: the position of the last event that it has processed; empty if it has none of its own.
        begun_times: how often in a row a process has begun to run it at this place.
    """

    place: tuple[int, ...]
    begun_times: int


def begin_handler(  # noqa: PLR0913 (the columns of its row)
    source: Source,
    consumer: str,
    claim: Claim,
    handler: str,
    at: tuple[int, ...],
    *,
    again: bool = False,
    log: str | None = None,
) -> HandlerRow:
    """Let this process run a handler of a consumer that it owns, and stands `at` a position.

    A process that begins `again` is not counted once more. With a `log`, the claim stands beside it, not in this
    database, and the positions are those of its events.
    A transaction in which a former owner runs the handler is ended after a second: its process may be paused.

    Raises:
        ConsumerLost: this process does not own the consumer any more.
        ServerUnreachable: the server is away, or the former owner's transaction did not end.
        LogRefused: the handler's position is one of another log.
    """
    params = {"name": consumer, "handler": handler, "epoch": claim.epoch, "holder": claim.holder}
    params |= {"at": [int(number) for number in at], "more": 0 if again else 1, "log": log}
    purpose = f"consumer {consumer}"
    with connect(source.conninfo, replication=False, purpose=purpose) as connection:
        try:
            connection.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
            waiter = {"waiter": connection.info.backend_pid}
            begin, end = ("begin", "end_blockers") if log is None else ("begin_of_group", "end_blockers_of_group")
            with ending_blockers(source, params | waiter, purpose, end):
                row = connection.execute(statement("workers", begin).encode(), params).fetchone()
            if row is None and log is not None:
                other = connection.execute(statement("workers", "other_log").encode(), params).fetchone()
                if other is not None:
                    raise _other_log(consumer, handler, log, other[0])
        except psycopg.errors.LockNotAvailable as exc:
            raise ServerUnreachable(
                f'handler "{handler}" of consumer "{consumer}" can\'t begin: a transaction of its former owner did not '
                "end; end it with pg_terminate_backend(), or ROLLBACK PREPARED if it is a prepared one"
            ) from exc
        except psycopg.Error as exc:
            raise map_consumer_error(exc, connection) from exc
    if row is None:
        raise ConsumerLost(f'consumer "{consumer}" was taken over by another process, or dropped')
    place, begun_times = row
    return HandlerRow(tuple(place), begun_times)


def _other_log(consumer: str, handler: str, log: str, other: str) -> LogRefused:
    group = consumer.rpartition("#")[0]
    return LogRefused(
        f'handler "{handler}" of group "{group}" has handled events of {other}, whose positions mean nothing in {log}: '
        "use another group for this log, or drop the group of that one: `pgdoc groups drop` with its URL and --dsn",
        reason="foreign",
    )
