# Written by .ci/twins.py from pgdoc/_async/worker_log_check.py: change that file, and run it.
"""Checks whether a worker can run that reads a log, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import PgdocError, StoreClosed
from pgdoc.relay.engines import open_reader
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.runtime.primitives import wait
from pgdoc.workers.findings import handler_finding, passed, refused

if TYPE_CHECKING:
    from pgdoc._sync.store import Store
    from pgdoc.relay.targets import Target
    from pgdoc.workers.findings import WorkerFinding
    from pgdoc.workers.registration import Registration

__all__ = ["check_log"]


def check_log(store: Store, log: Target, registrations: list[Registration]) -> list[WorkerFinding]:
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
        status = store.status()
    except StoreClosed:
        raise
    except PgdocError as exc:
        found.append(refused("worker-server", str(exc)))
    else:
        text = f"PostgreSQL {status.server_version}, database {status.database}, catalog {status.catalog}"
        found.append(passed("worker-server", text))
    found.append(_log_finding(log))
    return found


def _log_finding(log: Target) -> WorkerFinding:
    thread = LoopThread("pgdoc-check")
    try:
        reader = open_reader(log)
        try:
            info = wait(thread.submit(reader.open()))
        finally:
            wait(thread.submit(reader.close()))
    except PgdocError as exc:
        return refused("worker-log", str(exc))
    finally:
        thread.close()
    entries = max(0, info.last - info.first + 1)
    return passed("worker-log", f"{log.shown} has {entries:,} entries in {info.config.partitions} partitions")
