"""Ends the transactions that a takeover waits for.

A checkpoint holds the lock of the consumer's row until its transaction ends, and its process may be paused. Only
`pg_blocking_pids` finds that transaction if a savepoint took the lock, and only while the takeover waits. So another
session asks, and ends it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.errors import PgdocError
from pgdoc.replication.connection import connect
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.replication.source import Source

logger = logging.getLogger("pgdoc.consumer")

_PATIENCE_S = 1.0
_POLL_S = 0.1


@contextlib.contextmanager
def ending_blockers(
    source: Source, claim: dict[str, Any], purpose: str, block: str = "end_blockers"
) -> Iterator[list[PgdocError | psycopg.Error]]:
    """End what blocks the block's statement, once that takes longer than `_PATIENCE_S`.

    `claim` has the parameters of the statement named `block`. Yields a list that gets the error, if that fails.
    """
    done = threading.Event()
    errors: list[PgdocError | psycopg.Error] = []

    def end() -> None:
        if not done.wait(_PATIENCE_S):
            try:
                _end_until(done, source, claim, purpose, block)
            except (PgdocError, psycopg.Error) as exc:
                errors.append(exc)

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(end,), name=f"pgdoc-fence-{claim['name']}", daemon=True
    )
    thread.start()
    try:
        yield errors
    finally:
        done.set()
        thread.join()


def _end_until(done: threading.Event, source: Source, claim: dict[str, Any], purpose: str, block: str) -> None:
    with connect(source.conninfo, replication=False, purpose=purpose) as connection:
        while not done.wait(_POLL_S):
            for blocker in connection.execute(statement("consumers", block), claim):
                logger.warning(
                    'consumer "%s": ended the open transaction of pid %s, in which a former owner made a checkpoint',
                    claim["name"],
                    blocker.pid,
                )
