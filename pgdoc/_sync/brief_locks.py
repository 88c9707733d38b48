# Written by .ci/twins.py from pgdoc/_async/brief_locks.py: change that file, and run it.
"""Statements that lock a collection for a moment, without holding up its readers and writers for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.runtime.primitives import sleep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

__all__ = ["execute_briefly"]

_LOCK_TIMEOUT = b"SET LOCAL lock_timeout = '1s'"
_TRIES = 30
_PAUSE_S = 1.0  # those who queue behind the wait for a lock wait, too


def execute_briefly(connection: Connection[Any], queries: Sequence[bytes]) -> None:
    """Execute statements in one transaction.

    Raises:
        psycopg.errors.LockNotAvailable: other transactions kept the collection locked for half a minute.
    """
    for left in reversed(range(_TRIES)):
        try:
            with connection.transaction():
                connection.execute(_LOCK_TIMEOUT)
                for query in queries:
                    connection.execute(query)
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
            sleep(_PAUSE_S)
        else:
            return
