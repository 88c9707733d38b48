"""The store: collections, transactions, and the connections behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from pgdoc._async.bulk import AsyncBulk
from pgdoc._async.collection import AsyncCollection
from pgdoc._async.connections import AsyncConnections
from pgdoc._async.stream_backend import AsyncStreams
from pgdoc._async.transaction import AsyncTransaction
from pgdoc.crud.statements import call_statement
from pgdoc.database.errors import map_error
from pgdoc.database.migrate import migrate
from pgdoc.errors import CollectionNotFound, InvalidName
from pgdoc.model.names import check_consumer, check_name
from pgdoc.replication.source import PLUGIN_CHOICES, Source
from pgdoc.runtime.primitives import async_call
from pgdoc.sql import statement
from pgdoc.streams.bookmarks import begin_history
from pgdoc.streams.options import BUFFER_BYTES, BUFFER_SIZE, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from pgdoc._async.stream import AsyncChangeStream
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.streams.status import ConsumerStatus, History, Status

__all__ = ["AsyncStore"]


class AsyncStore:
    """Documents in a schema of a PostgreSQL database; a context manager that closes itself.

    Making one does no I/O: connections are opened on first use, and the server is looked at then.

    Args:
        conninfo: as psycopg takes it; what it leaves out comes from the PG* variables.
        schema: the PostgreSQL schema whose tables are the collections.
        auto_create: create a collection on the first insert into it, or watch on it. Without it, every call on a
            collection that does not exist raises `CollectionNotFound`.
        plugin: the output plugin of change streams: `wal2json`, `pgoutput`, which every PostgreSQL has, or `auto`:
            wal2json where the server has it and allows it, else pgoutput. Events and tokens are the same with either.
        replication_conninfo: a direct route to the server where `conninfo` goes through a pooler; documents then do
            without prepared statements, which would be of one of the pooler's sessions.
        pool_size: how many connections document calls may use at once.

    Raises:
        InvalidName: `schema` is no name.
    """

    def __init__(  # noqa: PLR0913 (the contract)
        self,
        conninfo: str = "",
        *,
        schema: str = "docs",
        auto_create: bool = True,
        plugin: str = "auto",
        replication_conninfo: str | None = None,
        pool_size: int = 10,
    ) -> None:
        if plugin not in PLUGIN_CHOICES:
            raise ValueError(f"plugin is {plugin!r}: one of {', '.join(PLUGIN_CHOICES)}")
        if pool_size < 1:
            raise ValueError(f"pool_size is {pool_size}: 1 at least")
        self._conninfo = conninfo
        self._schema = check_name(schema, "schema")
        self._auto_create = auto_create
        self._connections = AsyncConnections(
            conninfo, pool_size, schema=schema, through_pooler=replication_conninfo is not None
        )
        source = Source(conninfo if replication_conninfo is None else replication_conninfo, schema, plugin)
        self._streams = AsyncStreams(self._connections, source, auto_create=auto_create)

    def collection(self, name: str) -> AsyncCollection:
        """Return a handle on a collection; no I/O.

        Raises:
            InvalidName: not a letter or `_`, then letters, digits, `_`, `-`; or over 63 bytes.
        """
        return AsyncCollection(
            self._connections, self._schema, name, auto_create=self._auto_create, streams=self._streams
        )

    __getitem__ = collection

    async def create_collection(self, name: str) -> AsyncCollection:
        """Create a collection, or do nothing where it exists, and return its handle.

        Raises:
            InvalidName: not the name of a collection.
            CollectionNotFound: a table of this name is there, and is not a collection.
            DatabaseError: the role may not create it.
        """
        collection = self.collection(name)
        await self._call("create_collection", name)
        return collection

    async def drop_collection(self, name: str) -> bool:
        """Drop a collection with all its documents.

        Returns:
            Whether there was one.

        Raises:
            CollectionNotFound: a table of this name is there, and is not a collection.
        """
        return bool(await self._call("drop_collection", check_name(name, "collection")))

    async def rename_collection(self, old: str, new: str) -> AsyncCollection:
        """Rename a collection and return its new handle.

        Raises:
            CollectionNotFound: there is no collection `old`.
            InvalidName: one of them is not the name of a collection, or `new` is taken.
        """
        collection = self.collection(new)
        check_name(old, "collection")
        try:
            renamed = await self._call("rename_collection", old, new)
        except InvalidName as exc:
            raise InvalidName(f"collection {old!r} can't be renamed to {new!r}: that name is taken") from exc.__cause__
        if not renamed:
            raise CollectionNotFound(f'collection "{self._schema}.{old}" does not exist')
        return collection

    async def collections(self) -> list[str]:
        """Return the names of all collections of the schema, sorted."""
        return [row["name"] for row in await self._execute(statement("catalog", "collections"), [self._schema])]

    def transaction(self, metadata: Mapping[str, Any] | None = None, isolation: str | None = None) -> AsyncTransaction:
        """Return a transaction, to be entered: `async with store.transaction() as tx`.

        Args:
            metadata: what the events of the transaction carry, merged over the `pgdoc.metadata` blocks around it.
            isolation: `read committed`, `repeatable read` or `serializable`; the server's default else.

        Raises:
            InvalidDocument: the metadata has no form in JSON.
        """
        return AsyncTransaction(
            self._connections,
            schema=self._schema,
            auto_create=self._auto_create,
            metadata=metadata,
            isolation=isolation,
        )

    def bulk(self, metadata: Mapping[str, Any] | None = None) -> AsyncBulk:
        """Return a bulk, to be entered: `async with store.bulk() as b`, then `await b["orders"].insert(...)`.

        Its writes go out together, in few round trips, and are stored all or not at all.

        Args:
            metadata: as `transaction`.

        Raises:
            InvalidDocument: the metadata has no form in JSON.
        """
        return AsyncBulk(self.transaction(metadata), self._schema, auto_create=self._auto_create)

    def watch(  # noqa: PLR0913 (the contract)
        self,
        *names: str,
        where: Mapping[str, Any] | None = None,
        snapshot: bool = False,
        resume_after: ResumeToken | Lsn | str | None = None,
        consumer: str | None = None,
        auto_ack: bool = True,
        wait: bool = True,
        on_lost: str = "raise",
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> AsyncChangeStream:
        """Open a stream of the changes of several collections, or of all, present and future, where none is named.

        Without `resume_after` nothing committed before the call is seen, and everything committed after it returns.

        Args:
            *names: of the collections.
            where: a filter on `event.to_dict()`, such as `{"event_type": "insert", "full_document.data.total": 5}`;
                after `update_description.updated_fields` the rest of a path is one key. Events that do not match take
                no room in the buffer, and `resume_token` moves past them.
            snapshot: begin with what exists: each document comes once, as a `snapshot`, before any other event of it.
                Reading goes on in parts, without a long transaction, and changes come in between.
            resume_after: a token, its text, or a bare LSN: continue with the very next event. A bare LSN means every
                transaction whose commit record is at or after it. A consumer begins there when it is new.
            consumer: the name of a durable consumer: the server keeps its place, and its slot keeps the WAL that it
                has not acknowledged. Delivery is at least once.
            auto_ack: acknowledge an event when the next one is asked for. Without it, `ack` does; where `checkpoint` is
                called, what it has committed counts, and nothing else is acknowledged by itself.
            wait: while another process has the consumer open, be a standby. Without it that is an error.
            on_lost: `raise` when the consumer's place is lost, or `recreate`: begin anew, from now.
            buffer_size: how many events wait for the loop at most; a stream that is further behind reads on from the
                server's WAL.
            buffer_bytes: how many bytes they may have; one event always fits.

        Raises:
            InvalidFilter: `where` is no filter, or one on what events don't have.
            CollectionNotFound: a collection does not exist, and the store does not create it.
            HistoryLost: the server no longer keeps the WAL of that place.
            InvalidResumeToken: not a place of this cluster.
            ConsumerBusy: another process has the consumer open, and `wait` is false.
            ReplicationUnavailable: the server or the role is not set up for it; the message says how to.
            SlotBlocked: the first slot of the database has to wait for open transactions.
            ReplicaIdentityChanged: a table's changes have no before images.
        """
        options = StreamOptions.checked(
            where=where,
            snapshot=snapshot,
            resume_after=resume_after,
            consumer=consumer,
            auto_ack=auto_ack,
            wait=wait,
            on_lost=on_lost,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
        )
        return self._streams.watch(names, options)

    async def consumers(self) -> list[ConsumerStatus]:
        """List the durable consumers of the database, and how they are doing."""
        return await self._streams.consumers()

    async def drop_consumer(self, name: str) -> bool:
        """Drop a durable consumer with its slot, which then holds back no more WAL.

        Returns:
            Whether there was one.

        Raises:
            ConsumerBusy: a process has it open.
        """
        return await self._streams.drop_consumer(check_consumer(name))

    async def history(self) -> History:
        """Tell how far back streams can resume in this database, and what that costs."""
        return await self._streams.history()

    async def set_history(self, time: timedelta | None = None, size: int | None = None) -> None:
        """Set, for the database, how much history is kept: the WAL from which streams resume.

        On a server without `max_slot_wal_keep_size` it also says that history shall stay when no store streams.

        Args:
            time: keep at least this much, while `size` allows; `None` leaves it as it is.
            size: bytes of WAL to hold back at most; `None` leaves it as it is.

        Raises:
            ValueError: one of them is negative.
        """
        await self._streams.set_history(time, size)

    async def status(self) -> Status:
        """Tell what is at the other end, and whether streams work there."""
        return await self._streams.status()

    async def migrate(self) -> None:
        """Bring the catalog of the database to the newest version; safe from many processes at once.

        It also begins the history that streams resume from, where the server is set up for streams.
        """
        await async_call(migrate, self._conninfo)
        await async_call(begin_history, self._streams.hub.source.conninfo)

    async def close(self) -> None:
        """End all streams and close all connections; every later call raises `StoreClosed`. Safe to call twice."""
        try:
            await self._streams.close()
        finally:
            await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _create_missing(self, names: Iterable[str] | None) -> None:
        """Make sure that the collections are there: create them, or refuse where the store does not create any."""
        missing = set(names or ()).difference(await self.collections())
        if missing and not self._auto_create:
            raise CollectionNotFound(f'collection "{self._schema}.{min(missing)}" does not exist: create it first')
        for name in sorted(missing):
            await self.create_collection(name)

    async def _execute(self, query: str, params: Sequence[Any]) -> list[dict[str, Any]]:
        """Execute a statement of the library's own, outside any collection."""
        try:
            async with self._connections.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                return await (await cursor.execute(query.encode(), params)).fetchall()
        except psycopg.Error as exc:
            raise map_error(exc, f'schema "{self._schema}"') from exc

    async def _call(self, name: str, *names: str) -> Any:
        """Call one of the catalog's functions on collections of the schema."""
        self._connections.seen.clear()
        message = self._connections.carried()
        params = [self._schema, *names] if message is None else [message, self._schema, *names]
        try:
            ((result,),) = await self._connections.fetch(call_statement(name, carry=message is not None), params)
        except psycopg.errors.DuplicateTable as exc:
            raise InvalidName(str(exc)) from exc
        except psycopg.Error as exc:
            raise map_error(exc, f'collection "{self._schema}.{names[0]}"') from exc
        return result
