"""The streams of a store, and how far back they can start."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._async.stream import AsyncChangeStream
from pgdoc.consumers.consumer import Consumer
from pgdoc.consumers.ownership import drop_consumer
from pgdoc.database.errors import map_error
from pgdoc.errors import CollectionNotFound, PgdocError, PublicationIncomplete, ReplicaIdentityChanged, StoreClosed
from pgdoc.model.names import check_name
from pgdoc.model.positions import Lsn, Position
from pgdoc.model.tokens import ResumeToken
from pgdoc.replication.checks import check_published
from pgdoc.replication.session import try_reader
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.primitives import async_call, async_opening, async_sleep, async_wait, async_wait_for
from pgdoc.sql import statement
from pgdoc.streams.hub import CLOSE_LIMIT_S, Hub
from pgdoc.streams.status import ConsumerStatus, History, Status, plugin_reason

if TYPE_CHECKING:
    from pgdoc._async.connections import AsyncConnections
    from pgdoc.changes.fanout import Subscription
    from pgdoc.replication.source import Source
    from pgdoc.streams.options import StreamOptions

__all__ = ["AsyncStreams"]

_FLUSH_POLL_S = 0.01


class AsyncStreams:
    """The streams of a store, and the hub that all of them share.

    Args:
        connections: the store's, for what is asked of the server before a stream begins.
        source: what is read.
        auto_create: whether a collection that is watched by name is created.
    """

    def __init__(self, connections: AsyncConnections, source: Source, *, auto_create: bool) -> None:
        self._connections = connections
        self._auto_create = auto_create
        self.hub = Hub(source)
        self._consumers: set[Consumer] = set()
        self._closing = False

    async def prepare(self, names: frozenset[str] | None, *, create: bool = True) -> None:
        """See to it that what is to be watched exists and has before images.

        Args:
            names: of the collections; `None` for all.
            create: what is missing, or refuse it. A stream that resumes makes nothing: it tells what became of them.

        Raises:
            CollectionNotFound: it does not exist, and the store does not create it.
            ReplicaIdentityChanged: someone changed a table's replica identity.
            PublicationIncomplete: pgoutput would leave something out, and the role may not mend that.
        """
        self.hub.check_usable()
        schema, wanted = self.hub.source.schema, None if names is None else sorted(names)
        found: dict[str, bool] = dict(await self.fetch("watchable", schema, wanted, wanted))
        for name in sorted((names or frozenset()) - found.keys()) if create else ():
            if not self._auto_create:
                raise CollectionNotFound(f'collection "{schema}.{name}" does not exist: create it first')
            await self.fetch("create", schema, name)
        changed = sorted(name for name, full in found.items() if not full)
        if changed:
            raise ReplicaIdentityChanged(
                f'collection "{schema}.{changed[0]}" is not REPLICA IDENTITY FULL, its changes have no before image: '
                f'run ALTER TABLE "{schema}"."{changed[0]}" REPLICA IDENTITY FULL'
            )
        await self._publish(schema)

    async def _publish(self, schema: str) -> None:
        """See to it that pgoutput sends what is to be watched: tables that were made by hand may have to join."""
        ((fault,),) = await self.fetch("publication_fault", schema)
        if fault is None or self.hub.source.plugin == "wal2json":
            return
        try:
            ((fault,),) = await self.fetch("publish", schema)
        except PgdocError as exc:
            fault = f"{fault} ({exc})"
        if fault is not None and await self._plugin() == "pgoutput":
            raise PublicationIncomplete(f'the publication "pgdoc" {fault}')

    async def _plugin(self) -> str:
        source = self.hub.source
        if source.plugin != "auto":
            return source.plugin
        return self.hub.plugin or (await async_call(try_reader, source)).plugin

    async def wal_end(self) -> tuple[int, int]:
        """Ask how far the WAL is written, and how far it is flushed."""
        ((inserted, flushed),) = await self.fetch("wal_end")
        return inserted, flushed

    async def flush(self, flushed: int, to: int) -> None:
        """Return when the WAL is flushed up to `to`."""
        if flushed < to:
            await self.fetch("flush")
        while flushed < to:
            await async_sleep(_FLUSH_POLL_S)
            _, flushed = await self.wal_end()

    async def oldest(self) -> int | None:
        """Ask how far history reaches back."""
        ((oldest,),) = await self.fetch("oldest_bookmark")
        return None if oldest is None else int(oldest)

    async def check_published(self, position: Position, names: frozenset[str] | None) -> None:
        """Refuse to resume these collections, or all, where the plugin that is read would leave something out.

        Raises:
            HistoryLost: with the oldest place where it does not.
        """
        if self.hub.plugin == "pgoutput":
            schema = self.hub.source.schema
            ((since,),) = await self.fetch("published_since", schema, None if names is None else sorted(names))
            check_published(position.commit_lsn, since, schema)

    def watch(self, names: tuple[str, ...], options: StreamOptions) -> AsyncChangeStream:
        """Open a stream on these collections, or on all of the schema where none is named."""
        collections = frozenset(check_name(name, "collection") for name in names) or None
        return async_opening(AsyncChangeStream(self, collections, options))

    async def knows(self, consumer: str) -> bool:
        """Tell whether a durable consumer of this name has been opened before."""
        return bool(await self.fetch("knows", consumer))

    async def open_consumer(self, subscription: Subscription, options: StreamOptions) -> Consumer:
        """Open a durable consumer, and return when it reads, or is a standby."""
        assert options.consumer is not None  # noqa: S101 (who calls has one)
        consumer = Consumer(
            self.hub.source,
            options.consumer,
            subscription,
            begin_at=options.resume_after,
            wait=options.wait,
            recreate=options.on_lost == "recreate",
            snapshot=options.first_snapshot,
        )
        self._consumers -= {each for each in self._consumers.copy() if each.has_ended}
        self._consumers.add(consumer)
        if self._closing:  # looked at after it was added: close() copies after it has said so
            raise StoreClosed("the store is closed: make another to open a stream")
        try:
            self.hub.keep_history()
            await async_wait(consumer.start())
        except BaseException:
            consumer.leave()
            raise
        return consumer

    async def consumers(self) -> list[ConsumerStatus]:
        """Tell how the durable consumers of the database are doing."""
        rows = await self.fetch("consumers")
        return [_consumer_status(row) for row in rows]

    async def drop_consumer(self, name: str) -> bool:
        """Drop a durable consumer that nobody has open."""
        return await async_call(drop_consumer, self.hub.source, name)

    async def history(self) -> History:
        """Tell how far back streams can start, and what that costs."""
        ((kept_s, size, oldest, retained, bookmarks),) = await self.fetch("history")
        blockers = await self.fetch("blockers")
        return History(
            time=timedelta(seconds=kept_s),
            size=size,
            oldest=None if oldest is None else Lsn(oldest),
            retained_bytes=retained or 0,
            bookmarks=bookmarks,
            pinned_by=tuple(blockers),
        )

    async def set_history(self, time: timedelta | None, size: int | None) -> None:
        """Keep this much; what is `None` stays as it is."""
        if time is not None and (not isinstance(time, timedelta) or time < timedelta()):
            raise ValueError(f"time is {time!r}: give a timedelta that is not negative")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise ValueError(f"size is {size!r}: give a number of bytes that is not negative")
        await self.fetch("set_history", time, size)

    async def status(self) -> Status:
        """Tell what is at the other end; streams are tried for real."""
        source = self.hub.source
        ((server_version, database, catalog, collections, follows_ddl),) = await self.fetch("status", source.schema)
        plugin, refusal, problem = source.plugin, None, None
        try:
            stand = await async_call(try_reader, source)
            plugin, refusal = stand.plugin, stand.refusal
            if plugin == "pgoutput":
                ((fault,),) = await self.fetch("publication_fault", source.schema)
                problem = fault and f'the publication "pgdoc" {fault}'
        except PgdocError as exc:
            problem = str(exc)
        return Status(
            server_version=server_version,
            database=database,
            catalog=catalog,
            schema=source.schema,
            collections=collections,
            plugin=plugin,
            plugin_reason=plugin_reason(source.plugin, plugin, refusal),
            follows_ddl=follows_ddl,
            problem=problem,
        )

    async def close(self) -> None:
        """End all streams."""
        deadline = time.monotonic() + CLOSE_LIMIT_S
        self._closing = True
        consumers = self._consumers.copy()
        for consumer in consumers:
            consumer.leave()
        await async_wait_for(self.hub.begin_to_close(), CLOSE_LIMIT_S)
        for consumer in consumers:
            await async_call(consumer.close, max(0.1, deadline - time.monotonic()))

    async def names(self) -> list[str]:
        """List the collections of the schema."""
        return sorted(row[0] for row in await self.fetch("watchable", self.hub.source.schema, None, None))

    async def fetch(
        self, name: str, *params: Any, table: str = "", limit_s: float | None = None
    ) -> list[tuple[Any, ...]]:
        """Fetch the rows of a block of `streams.sql`.

        None of them takes long, unless `limit_s` says so, and a silent network must not keep a stream from opening.
        """
        query = statement("streams", name).format(table=table) if table else statement("streams", name)
        try:
            with deadline_scope(limit_s):
                return await self._connections.fetch(query.encode(), params)
        except psycopg.Error as exc:
            raise map_error(exc, f"collection {table}" if table else f'schema "{self.hub.source.schema}"') from exc


def _consumer_status(row: tuple[Any, ...]) -> ConsumerStatus:
    name, schema, owner_pid, place, system_id, timeline, *others = row
    token = ResumeToken(Position(*place[:4]) if place else Position(0), int(system_id), timeline)
    return ConsumerStatus(name, schema, owner_pid, token, *others)
