"""Checks whether a worker can run that reads a log, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import PgdocError, StoreClosed
from pgdoc.relay.engines import open_reader
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.runtime.primitives import async_wait
from pgdoc.workers.findings import handler_finding, passed, refused

if TYPE_CHECKING:
    from pgdoc._async.store import AsyncStore
    from pgdoc.relay.targets import Target
    from pgdoc.workers.findings import WorkerFinding
    from pgdoc.workers.registration import Registration

__all__ = ["check_log"]


async def check_log(store: AsyncStore, log: Target, registrations: list[Registration]) -> list[WorkerFinding]:
    """Return what is found of the handlers, of the server of their effects, and of the log.

    Raises:
        StoreClosed: the store is closed.
    """
    found = [handler_finding(each) for each in registrations]
    if not found:
        found.append(
            refused("worker-no-handlers", "the worker has no handlers: decorate functions with @worker.on(...)")
        )
    try:
        status = await store.status()
    except StoreClosed:
        raise
    except PgdocError as exc:
        found.append(refused("worker-server", str(exc)))
    else:
        text = f"PostgreSQL {status.server_version}, database {status.database}, catalog {status.catalog}"
        found.append(passed("worker-server", text))
    found.append(await _log_finding(log))
    return found


async def _log_finding(log: Target) -> WorkerFinding:
    thread = LoopThread("pgdoc-check")
    try:
        reader = open_reader(log)
        try:
            info = await async_wait(thread.submit(reader.open()))
        finally:
            await async_wait(thread.submit(reader.close()))
    except PgdocError as exc:
        return refused("worker-log", str(exc))
    finally:
        thread.close()
    entries = max(0, info.last - info.first + 1)
    return passed("worker-log", f"{log.shown} has {entries:,} entries in {info.config.partitions} partitions")
