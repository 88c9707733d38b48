# Written by .ci/twins.py from pgdoc/_async/worker_log_check.py: change that file, and run it.
"""Checks whether a worker can run that reads a log, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc._sync.worker_check import ask
from pgdoc.database.quoting import identifier
from pgdoc.database.rights import WORKER_TABLES
from pgdoc.errors import PgdocError, StoreClosed
from pgdoc.relay.engines import open_log_reader
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.runtime.primitives import wait
from pgdoc.workers.findings import handler_findings, letter_findings, passed, refused, rights_finding, server_finding

if TYPE_CHECKING:
    from pgdoc._sync.store import Store
    from pgdoc.relay.log import LogInfo
    from pgdoc.relay.targets import LogTarget
    from pgdoc.workers.findings import WorkerFinding
    from pgdoc.workers.registration import Registration

__all__ = ["check_log", "log_named"]


def log_named(log: LogTarget, source: str) -> str:
    """Return whose positions the rows of a group's handlers have: those of another log mean something else."""
    return f"{log.name} of {source}"


def check_log(store: Store, log: LogTarget, registrations: list[Registration]) -> list[WorkerFinding]:
    """Return what is found of the handlers, of the server of their effects, and of the log.

    Raises:
        StoreClosed: the store is closed.
    """
    found = handler_findings(registrations)
    info: LogInfo | None = None
    try:
        info = _look_at(log)
    except PgdocError as exc:
        found.append(refused("worker-log", str(exc)))
    else:
        entries = max(0, info.last - info.first + 1)
        text = f"{log.shown} has {entries:,} entries in {info.config.partitions} partitions"
        found.append(passed("worker-log", text))
    try:
        _check_server(store, registrations, None if info is None else log_named(log, info.config.source), found)
    except StoreClosed:
        raise
    except PgdocError as exc:
        found.append(refused("worker-server", str(exc)))
    return found


def _look_at(log: LogTarget) -> LogInfo:
    thread = LoopThread("pgdoc-check")
    try:
        reader = open_log_reader(log)
        try:
            return wait(thread.submit(reader.open()))
        finally:
            wait(thread.submit(reader.close()))
    finally:
        thread.close()


def _check_server(store: Store, registrations: list[Registration], log: str | None, found: list[WorkerFinding]) -> None:
    """Add what the server of the effects says; `log` is `None` if that can't be read."""
    found.append(server_finding(store.status()))
    role = identifier(store._streams.caller.role)  # noqa: SLF001 (one package)
    rights = rights_finding(role, [(*row,) for row in ask(store, "rights", list(WORKER_TABLES))])
    found.append(rights)
    if rights.verdict != "ok":
        return
    groups = sorted({each.consumer for each in registrations})
    known = {(each.consumer, each.name) for each in registrations}
    stored = ask(store, "handlers_of_groups", groups)
    for group, handler, other in sorted(stored):
        if log is not None and other != log and (group, handler) in known:
            text = f"the handler has handled events of {other}, and these are those of {log}: use another group"
            found.append(refused("worker-other-log", text, group, handler))
    letters = ask(store, "letters_of_groups", groups)
    found += letter_findings(known, {(row[0], row[1]) for row in stored}, [(*row,) for row in letters])
