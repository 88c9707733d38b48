# Written by .ci/twins.py from pgdoc/_async/relay_check.py: change that file, and run it.
"""Checks whether a relay can run, without sending, creating or changing anything."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pgdoc._sync.worker_check import WorkerCheck
from pgdoc._sync.worker_consumer import WorkerConsumer
from pgdoc.errors import LogRefused, PgdocError
from pgdoc.relay.config import LogConfig
from pgdoc.relay.engines import READABLE, open_log_reader
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.runtime.primitives import wait
from pgdoc.sql import statement
from pgdoc.workers.findings import passed, refused, warned
from pgdoc.workers.registration import Registration

if TYPE_CHECKING:
    from pgdoc._sync.store import Store
    from pgdoc.relay.options import RelayOptions
    from pgdoc.relay.targets import LogTarget
    from pgdoc.workers.findings import WorkerFinding

__all__ = ["check_log_of", "check_relay"]


def check_relay(store: Store, options: RelayOptions, log: LogTarget) -> list[WorkerFinding]:
    """Return what is found of the server, the consumer and what it reads, and of the log."""
    registration = Registration.checked(
        lambda events: events,
        options.names,
        encoder=store._connections.codec.encoder,  # noqa: SLF001 (one package)
        consumer=options.consumer,
        name="relay",
        where=options.where,
        tables=options.tables,
        topics=options.topics,
        snapshot=options.snapshot,
        batch=1,
        retries=None,
        on_dead="continue",
    )
    consumer = WorkerConsumer(store, options.consumer, [registration], hang_after_s=1.0, shutdown_s=1.0)
    found = [_of_relay(each) for each in WorkerCheck(store, [consumer]).run() if each.id != "worker-handler"]
    found.append(_log_finding(store, options, log))
    return found


def _of_relay(finding: WorkerFinding) -> WorkerFinding:
    """Return a finding of a worker in the words of a relay."""
    if finding.id == "worker-consumer-missing":
        return warned(
            "relay-consumer-missing",
            f"consumer {finding.consumer} does not exist: the relay creates it when it runs, and the log lacks what is "
            "written before; `pgdoc consumers create` creates it now",
            finding.consumer,
        )
    name = finding.id.replace("worker-", "relay-", 1)
    return replace(finding, id=name, text=finding.text.replace("the worker", "the relay"), handler=None)


def _log_finding(store: Store, options: RelayOptions, log: LogTarget) -> WorkerFinding:
    if log.engine not in READABLE:
        return warned("relay-log-unread", f"{log.shown} was not looked at: pgdoc does not read logs of its engine")
    thread = LoopThread("pgdoc-check")
    try:
        entries = check_log_of(store, options, log, thread)
    except PgdocError as exc:
        return refused("relay-log", str(exc), options.consumer)
    finally:
        thread.close()
    if entries is None:
        return passed("relay-log-missing", f"{log.shown} does not exist: the relay creates it", options.consumer)
    return passed("relay-log", f"{log.shown} is this relay's, and has {entries:,} entries", options.consumer)


def check_log_of(store: Store, options: RelayOptions, log: LogTarget, thread: LoopThread) -> int | None:
    """Check that a log is this relay's; return how many entries it has, or `None` if it does not exist.

    Raises:
        LogRefused: the log is another one.
        LogUnreachable: its engine does not answer.
    """
    reader = open_log_reader(log)
    try:
        info = wait(thread.submit(reader.open()))
        is_empty = info.first > info.last
        last = "" if is_empty else wait(thread.submit(reader.token_at(info.last)))
    except LogRefused as exc:
        if exc.reason == "missing":
            return None
        raise
    finally:
        wait(thread.submit(reader.close()))
    if last is None:
        raise LogRefused(
            f"{log.shown} has a message that no relay wrote, at sequence {info.last}: nobody else may publish there; "
            "delete it, or name another",
            reason="foreign",
        )
    ((system_id, database_oid),) = store._connections.fetch(statement("relays", "ids").encode(), [])  # noqa: SLF001
    wanted = LogConfig(
        system_id=system_id % (1 << 64),  # it is unsigned
        database_oid=database_oid,
        selection=options.selection,
        format=options.format,
        partitions=options.partitions,
        consumer=options.consumer,
    )
    wanted.of_engine(limit=info.config.limit, layout=info.config.layout).check(info.config, log.shown)
    return max(0, info.last - info.first + 1)
