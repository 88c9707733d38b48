# Written by .ci/twins.py from pgdoc/_async/brief_locks.py: change that file, and run it.
"""Statements that lock a collection for a moment, without holding up its readers and writers for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.runtime.primitives import sleep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from pgdoc.runtime.primitives import Act

__all__ = ["TRIES", "execute_briefly", "try_briefly"]

_LOCK_TIMEOUT = b"SET LOCAL lock_timeout = '1s'"
TRIES = 30
_PAUSE_S = 1.0  # those who queue behind the wait for a lock wait, too


def execute_briefly(connection: Connection[Any], queries: Sequence[bytes], *, tries: int = TRIES) -> None:
    """Execute statements in one transaction.

    Raises:
        psycopg.errors.LockNotAvailable: other transactions kept the collection locked for half a minute.
    """

    def execute() -> None:
        with connection.transaction():
            connection.execute(_LOCK_TIMEOUT)
            for query in queries:
                connection.execute(query)

    try_briefly(execute, tries=tries)


def try_briefly(execute: Act[object], *, tries: int = TRIES) -> None:
    """Call a function that waits for a lock for a second, until it gets it; raises as `execute_briefly`."""
    for left in reversed(range(tries)):
        try:
            execute()
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
            sleep(_PAUSE_S)
        else:
            return
