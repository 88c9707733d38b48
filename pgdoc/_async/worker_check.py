"""Checks whether a worker can run, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.database.errors import map_error
from pgdoc.database.quoting import identifier
from pgdoc.database.rights import STREAMER_TABLES
from pgdoc.database.table_errors import needs_event_triggers, not_added
from pgdoc.errors import PgdocError, StoreClosed
from pgdoc.model.table_names import is_table_name, table_address, titled
from pgdoc.replication.checks import hidden_documents
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement
from pgdoc.workers.findings import (
    consumer_finding,
    handler_findings,
    letter_findings,
    passed,
    refused,
    rights_finding,
    server_finding,
    warned,
)

if TYPE_CHECKING:
    from pgdoc._async.store import AsyncStore
    from pgdoc._async.worker_consumer import AsyncWorkerConsumer
    from pgdoc.changes.router import Selection
    from pgdoc.streams.status import ConsumerStatus, Status
    from pgdoc.workers.findings import WorkerFinding
    from pgdoc.workers.registration import Registration

__all__ = ["AsyncWorkerCheck", "ask"]


class AsyncWorkerCheck:
    """One run of the checks. A stream is opened for a moment, to see that the server and the role allow it."""

    def __init__(self, store: AsyncStore, consumers: list[AsyncWorkerConsumer]) -> None:
        self._store = store
        self._consumers = consumers
        self._registrations = [each for consumer in consumers for each in consumer.registrations]
        self._schema = store._schema  # noqa: SLF001 (one package)
        self._found: list[WorkerFinding] = []

    async def run(self) -> list[WorkerFinding]:
        """Run the checks; what can't be asked for is a finding, too."""
        self._found = handler_findings(self._registrations)
        try:
            status = await self._store.status()
        except StoreClosed:
            raise
        except PgdocError as exc:
            self._found.append(refused("worker-server", str(exc)))
            return self._found
        self._found.append(server_finding(status))
        self._found.append(_stream_finding(status))
        try:
            await self._check_catalog(status)
        except PgdocError as exc:
            self._found.append(refused("worker-server", str(exc)))
        return self._found

    async def _check_catalog(self, status: Status) -> None:
        is_allowed = await self._check_rights()
        if not is_allowed:
            return
        found = {each.name: each for each in await self._store.consumers()}
        for consumer in self._consumers:
            self._found.append(consumer_finding(consumer.name, found.get(consumer.name), self._schema))
        await self._check_room([each.name for each in self._consumers if each.name not in found])
        await self._check_snapshots(found)
        for registration in self._registrations:
            await self._check_names(registration, status, has_consumer=registration.consumer in found)
        names = [each.name for each in self._consumers]
        known = {(each.consumer, each.name) for each in self._registrations}
        stored, letters = await self._ask("handlers", names), await self._ask("letters", names)
        self._found += letter_findings(known, [(row[0], row[1]) for row in stored], [(*row,) for row in letters])

    async def _check_rights(self) -> bool:
        role = identifier(self._store._streams.caller.role)  # noqa: SLF001 (one package)
        found = rights_finding(role, await self._ask("rights", list(STREAMER_TABLES)))
        self._found.append(found)
        return found.verdict == "ok"

    async def _check_room(self, missing: list[str]) -> None:
        """Check that each consumer that does not exist can have a slot."""
        ((free,),) = await self._ask("free_slots")
        if free < len(missing):
            self._found.append(
                refused(
                    "worker-slots",
                    f"the server has {max(free, 0)} free replication slots, and the worker needs {len(missing)} "
                    "for new consumers: drop those that nobody needs, or raise max_replication_slots",
                )
            )

    async def _check_snapshots(self, found: dict[str, ConsumerStatus]) -> None:
        unfinished = {name for (name,) in await self._ask("in_snapshot", [each.name for each in self._consumers])}
        for registration in self._registrations:
            name = registration.consumer
            if name in unfinished and not registration.snapshot:
                text = f"consumer {name} has not finished its snapshot: pass snapshot=True to worker.on()"
                self._found.append(refused("worker-snapshot", text, name, registration.name))
            elif name not in found and registration.snapshot:
                rows = await self._fetch("row_security", registration.selection)
                for (hidden,) in rows:
                    text = str(hidden_documents(titled(hidden, self._schema)))
                    self._found.append(refused("worker-row-security", text, name, registration.name))

    async def _check_names(self, registration: Registration, status: Status, *, has_consumer: bool) -> None:
        """Check that what a handler is on exists, and that its changes have before images."""
        found: dict[str, bool] = dict(await self._fetch("watchable", registration.selection))
        wanted = registration.selection.collections
        for name in sorted((wanted or frozenset()) - found.keys()):
            self._found.append(self._missing(registration, name, has_consumer=has_consumer))
        for name in sorted(name for name, is_full in found.items() if not is_full):
            self._found.append(self._not_full(registration, name))
        tables = [name for name in wanted or () if is_table_name(name)]
        if tables and status.plugin == "wal2json" and not status.follows_ddl:
            text = str(needs_event_triggers(tables[0]))
            self._found.append(refused("worker-event-triggers", text, registration.consumer, registration.name))

    def _missing(self, registration: Registration, name: str, *, has_consumer: bool) -> WorkerFinding:
        about, found = (registration.consumer, registration.name), f"{titled(name, self._schema)} "
        found += "is not watched" if is_table_name(name) else "does not exist"
        if has_consumer:
            return warned("worker-collection-gone", f"{found}, and its consumer exists: it is not created", *about)
        if is_table_name(name):
            return refused("worker-table-missing", str(not_added(name)), *about)
        if self._store._auto_create:  # noqa: SLF001 (one package)
            return passed("worker-collection-missing", f"{found}: the worker creates it with its consumer", *about)
        return refused(
            "worker-collection-missing", f"{found}: create it with store.create_collection(), or check the name", *about
        )

    def _not_full(self, registration: Registration, name: str) -> WorkerFinding:
        address = table_address(name) if is_table_name(name) else (self._schema, name)
        text = f"{titled(name, self._schema)} is not REPLICA IDENTITY FULL, so its changes have no before image"
        fix = [f"ALTER TABLE {identifier(*address)} REPLICA IDENTITY FULL"]
        about = (registration.consumer, registration.name)
        if registration.selection.collections is None:
            return warned("worker-identity", f"{text}, and the next one ends the stream", *about, fix=fix)
        return refused("worker-identity", text, *about, fix=fix)

    async def _fetch(self, block: str, selection: Selection) -> list[tuple[Any, ...]]:
        return await self._store._streams.fetch(block, self._schema, selection.names)  # noqa: SLF001 (one package)

    async def _ask(self, block: str, *params: Any) -> list[tuple[Any, ...]]:
        return await ask(self._store, block, *params)


async def ask(store: AsyncStore, block: str, *params: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a block of `worker_check.sql`."""
    query = statement("worker_check", block).encode()
    try:
        with deadline_scope():
            return await store._connections.fetch(query, params)  # noqa: SLF001 (one package)
    except psycopg.Error as exc:
        raise map_error(exc, "the check of the worker") from exc


def _stream_finding(status: Status) -> WorkerFinding:
    if status.problem is not None:
        return refused("worker-stream", status.problem, fix=["pgdoc doctor"])
    return passed("worker-stream", f"a stream through {status.plugin} works ({status.plugin_reason})")
