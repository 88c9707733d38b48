"""Statements that lock a collection for a moment, without holding up its readers and writers for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.runtime.primitives import async_sleep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

    from pgdoc.runtime.primitives import AsyncAct

__all__ = ["TRIES", "execute_briefly", "try_briefly"]

_LOCK_TIMEOUT = b"SET LOCAL lock_timeout = '1s'"
TRIES = 30
_PAUSE_S = 1.0  # those who queue behind the wait for a lock wait, too


async def execute_briefly(connection: AsyncConnection[Any], queries: Sequence[bytes], *, tries: int = TRIES) -> None:
    """Execute statements in one transaction.

    Raises:
        psycopg.errors.LockNotAvailable: other transactions kept the collection locked for half a minute.
    """

    async def execute() -> None:
        async with connection.transaction():
            await connection.execute(_LOCK_TIMEOUT)
            for query in queries:
                await connection.execute(query)

    await try_briefly(execute, tries=tries)


async def try_briefly(execute: AsyncAct[object], *, tries: int = TRIES) -> None:
    """Call a function that waits for a lock for a second, until it gets it; raises as `execute_briefly`."""
    for left in reversed(range(tries)):
        try:
            await execute()
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
            await async_sleep(_PAUSE_S)
        else:
            return
