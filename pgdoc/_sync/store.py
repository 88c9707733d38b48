# Written by .ci/twins.py from pgdoc/_async/store.py: change that file, and run it.
"""The store: collections, transactions and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import psycopg

from pgdoc._sync.admin import Admin
from pgdoc._sync.bulk import Bulk
from pgdoc._sync.catalog_calls import CatalogCalls
from pgdoc._sync.collection import Collection
from pgdoc._sync.connections import Connections
from pgdoc._sync.dead_letters import DeadLetterCalls
from pgdoc._sync.live import live_query
from pgdoc._sync.live_calls import LiveStoreCalls
from pgdoc._sync.live_sources import LiveSources
from pgdoc._sync.publishing import publish_message
from pgdoc._sync.server_calls import ServerCalls
from pgdoc._sync.stream import ChangeStream
from pgdoc._sync.stream_backend import StreamBackend
from pgdoc._sync.table_calls import TableCalls
from pgdoc._sync.transaction import Transaction
from pgdoc._sync.transaction_session import TransactionSession
from pgdoc.database.conninfo import check_texts
from pgdoc.database.errors import is_retryable
from pgdoc.database.pool_figures import PoolFigures
from pgdoc.errors import PgdocError
from pgdoc.model.names import check_index, check_name
from pgdoc.model.value_codec import ValueCodec
from pgdoc.replication.source import PLUGIN_CHOICES, Source
from pgdoc.replication.traffic import source_labels
from pgdoc.runtime.census import CENSUS
from pgdoc.runtime.primitives import check_body, opening, sleep
from pgdoc.runtime.retry import random_delays
from pgdoc.streams.options import (
    BUFFER_BYTES,
    BUFFER_SIZE,
    StreamOptions,
    check_at_least,
    check_watchable,
    make_selection,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import TypeForm

    from pgdoc._sync.live import LiveQuery
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.model.values import Encoder
    from pgdoc.query.filters.projection_parse import Fields
    from pgdoc.runtime.primitives import Body

    T = TypeVar("T")
    from pgdoc.model.type_variables import N

__all__ = ["Store"]


class Store(CatalogCalls, TableCalls, ServerCalls, DeadLetterCalls, LiveStoreCalls):
    """Collections of documents in one schema of a PostgreSQL database.

    A context manager that closes the store at the end of its block. Creating a store does no I/O: the first call that
    needs a connection checks the server and opens the pool.

    Args:
        conninfo: a connection string or URL as psycopg accepts it; PG* environment variables supply what it leaves out.
        schema: the PostgreSQL schema whose tables are the collections.
        auto_create: whether the first insert into a missing collection, and watching it by name, creates the
            collection. Otherwise every call on a missing collection raises `CollectionNotFound`.
        plugin: the output plugin of change streams: `wal2json`; `pgoutput`, which every PostgreSQL has; or `auto`:
            wal2json where the server has it and allows it, else pgoutput. Events and tokens are the same.
        replication_conninfo: a connection string for change streams. It must reach a server directly if `conninfo` goes
            through a connection pooler. On PostgreSQL 16 and newer it may lead to a standby, for streams without a
            consumer.
        pool_size: how many connections document calls may use at once. As many others are for calls that keep one while
            your own code runs: `find` with more than 100 documents, and index builds.
        encoder: called with each value that is not a str, int, finite float, bool, None, list, tuple or dict. It
            returns what to store instead, or the value itself for its usual form.
        decimals: whether numbers with a fraction are read as `Decimal`, with the digits that are stored.
        failover: whether the slots of consumers and of history are failover slots, which standbys can synchronize:
            `auto`, from PostgreSQL 17 on; `True`, which older servers refuse; or `False`.

    Raises:
        InvalidName: `schema` is not a valid name.
        ValueError: `conninfo`, `plugin`, `pool_size`, `encoder`, `decimals` or `failover` is invalid.
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
        encoder: Encoder | None = None,
        decimals: bool = False,
        failover: str | bool = "auto",
    ) -> None:
        if plugin not in PLUGIN_CHOICES:
            raise ValueError(f"plugin must be one of {', '.join(PLUGIN_CHOICES)}, got {plugin!r}")
        if failover is not True and failover is not False and failover != "auto":
            raise ValueError(f'failover must be "auto", True or False, got {failover!r}')
        check_at_least(1, "pool_size", pool_size)
        check_texts(conninfo=conninfo, replication_conninfo=replication_conninfo or "")
        self._conninfo = conninfo
        self._schema = check_name(schema, "schema")
        self._auto_create = auto_create
        self._connections = Connections(
            conninfo,
            pool_size,
            schema=schema,
            direct_conninfo=replication_conninfo,
            codec=ValueCodec.checked(encoder, decimals=decimals),
        )
        source = Source(
            conninfo if replication_conninfo is None else replication_conninfo,
            schema,
            plugin,
            failover,
            primary=None if replication_conninfo is None else conninfo,
        )
        self._streams = StreamBackend(self._connections, source, auto_create=auto_create)
        self._live = LiveSources(self._streams, self._connections)
        self._admin = Admin(self._streams)
        CENSUS.enter(self, PoolFigures(source_labels(source.conninfo, schema), self._connections))

    @overload
    def collection(self, name: str, model: None = None) -> Collection: ...

    @overload
    def collection(self, name: str, model: type[N]) -> Collection[N]: ...

    @overload
    def collection(self, name: str, model: TypeForm[N]) -> Collection[N]: ...

    def collection(self, name: str, model: Any = None) -> Collection[Any]:
        """Return a handle on a collection; no I/O. `store[name]` does the same without a model.

        Args:
            name: the name of the collection.
            model: what the data of its documents is read as: a pydantic model or dataclass, a msgspec `Struct`, a
                dataclass, a `TypedDict`, or a union of these; by default a dict.

        Raises:
            InvalidName: `name` is not a letter or `_` followed by letters, digits, `_` or `-`, or is over 63 bytes.
            InvalidInput: `model` is not a model, or its library can't read it.
            MissingExtra: the library that reads the model is not installed.
        """
        return Collection(
            self._connections, self._schema, name, auto_create=self._auto_create, live=self._live, model=model
        )

    def __getitem__(self, name: str) -> Collection:
        return self.collection(check_index(name, "store"))

    def transaction(self, metadata: Mapping[str, Any] | None = None, isolation: str | None = None) -> Transaction:
        """Return a transaction; enter it with `with store.transaction() as tx`.

        Args:
            metadata: stored with the events of the transaction, merged over the `pgdoc.metadata` blocks around it.
            isolation: `read committed`, `repeatable read` or `serializable`; `None` for the server's default.

        Raises:
            InvalidDocument: JSON cannot represent the metadata.
            ValueError: `isolation` is none of these.
        """
        session = TransactionSession(self._connections, metadata=metadata, isolation=isolation)
        return Transaction(session, self._schema, auto_create=self._auto_create)

    def run(
        self,
        fn: Body[Transaction, T],
        *,
        retries: int = 3,
        metadata: Mapping[str, Any] | None = None,
        isolation: str | None = None,
    ) -> T:
        """Run a function of a transaction, and repeat it when it meets another transaction.

        Each attempt calls `fn(tx)` in a new transaction and commits. After a `retryable` error, such as a serialization
        failure, a deadlock or a connection lost before the commit, nothing is stored, and the next attempt follows
        after a short random delay. So `fn` must do nothing outside the transaction that it may not do twice. It must
        not catch such an error and go on.

        No other error is repeated. `CommitUnknown` is not, because the transaction may be stored.

        Args:
            fn: called with the transaction.
            retries: how often to repeat it; then the error is raised.
            metadata: as for `transaction`.
            isolation: as for `transaction`.

        Returns:
            What `fn` returns; `None` if it raises `psycopg.Rollback`.

        Raises:
            SerializationFailure: the last attempt met another transaction, too.
            TransactionLost: the connection was lost in the last attempt, too.
            CommitUnknown: the connection was lost during the commit.
            ValueError: `retries` is not a number of at least 0, or `isolation` is invalid.
            TypeError: `fn` is not a function, or one of the other kind: `Store` takes coroutine functions.
        """
        check_at_least(0, "retries", retries)
        check_body(fn)
        for delay_s in random_delays(retries):
            try:
                return self._run(fn, metadata, isolation)
            except (PgdocError, psycopg.Error) as exc:
                if not is_retryable(exc):
                    raise
            sleep(delay_s)
        return self._run(fn, metadata, isolation)

    def _run(self, fn: Body[Transaction, T], metadata: Mapping[str, Any] | None, isolation: str | None) -> T:
        with self.transaction(metadata, isolation) as tx:
            return fn(tx)
        return cast("T", None)  # `fn` raised psycopg.Rollback

    def bulk(self, metadata: Mapping[str, Any] | None = None, *, ordered: bool = True) -> Bulk:
        """Return a bulk; enter it with `with store.bulk() as b`, then `b["orders"].insert(...)`.

        Its writes are sent together in few round trips, and are stored all or none.

        Args:
            metadata: as for `transaction`.
            ordered: if false, a write that fails leaves the others alone; the end raises `BulkIncomplete`.

        Raises:
            InvalidDocument: JSON cannot represent the metadata.
        """
        session = TransactionSession(self._connections, metadata=metadata, isolation=None)
        return Bulk(session, self._schema, auto_create=self._auto_create, ordered=ordered)

    def publish(self, topic: str, payload: Any, key: DocumentId | None = None) -> None:
        """Publish an event of your own, in a transaction of its own; see `Transaction.publish`."""
        publish_message(self._connections, topic, payload, key)

    def watch(  # noqa: PLR0913 (the contract)
        self,
        *names: str,
        tables: bool = False,
        topics: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        snapshot: bool = False,
        resume_after: ResumeToken | Lsn | str | None = None,
        consumer: str | None = None,
        auto_ack: bool = True,
        wait: bool = True,
        on_lost: str = "raise",
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> ChangeStream:
        """Open a stream of the changes of several collections, tables and topics, or of all collections.

        Those to come count, too.

        Without `resume_after` the stream delivers nothing that was committed before the call, and everything that is
        committed after it returns.

        Args:
            *names: the collections, and the tables as `"schema.table"` (see `add_table`); none, or `"*"`, for all
                collections.
            tables: without names, all watched tables as well.
            topics: the topics of events that applications `publish`, such as `"order.shipped"`; `"order.*"` for all
                below `order`, `"*"` for all. Without names, the stream is only on these.
            where: a filter on `event.to_dict()`, such as `{"event_type": "insert", "full_document.data.total": 5}`.
                After `update_description.updated_fields`, the rest of a path is one key. Events that do not match take
                no room in the buffer, and `resume_token` advances past them.
            snapshot: begin with the documents that exist. Each is delivered once, as a `snapshot` event, before any
                other event of that document. They are read in chunks, without a long transaction, and changes are
                delivered in between.
            resume_after: a token, its text, or a bare LSN: continue with the very next event. A bare LSN means every
                transaction whose commit record is at or after it. A new consumer begins there.
            consumer: the name of a durable consumer. The server stores its position, and its slot keeps the WAL that
                it has not acknowledged. Events are delivered at least once.
            auto_ack: acknowledge an event when the next one is asked for. Otherwise call `ack`. If `checkpoint` is
                called, only what it has committed counts, and nothing else is acknowledged automatically.
            wait: be a standby while another process has the consumer open; otherwise raise `ConsumerBusy`.
            on_lost: what to do when the consumer's position is lost: `raise` an error, or `recreate` the consumer,
                which then begins from now.
            buffer_size: how many events may wait in memory, 10,000 by default. A stream that falls further behind reads
                them from the server's WAL.
            buffer_bytes: how many bytes they may have, 64 MiB by default; one event always fits.

        Raises:
            InvalidFilter: `where` is not a filter, or uses a field that events do not have.
            CollectionNotFound: a collection does not exist, and the store does not create it.
            TableRefused: a table is not watched.
            ValueError: `tables` is true, and there are names.
            HistoryLost: the server no longer keeps the WAL of that position.
            InvalidResumeToken: the position is not one of this cluster.
            ConsumerBusy: another process has the consumer open, and `wait` is false.
            ReplicationUnavailable: the server or the role is not set up for streams; the message says what to do.
            SlotBlocked: the first slot of the database has to wait for open transactions.
            ReplicaIdentityChanged: a table's changes have no before images.
        """
        options = StreamOptions.checked(
            codec=self._connections.codec,
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
        selection = make_selection(names, options.where, tables=tables, topics=topics)
        return opening(ChangeStream(self._streams, selection, options))

    def live(  # noqa: PLR0913
        self,
        name: str,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: Fields | None = None,
        collation: str | None = None,
    ) -> LiveQuery:
        """Open a live query on a collection, or on a watched table; see `Collection.live`.

        Args:
            name: that of the collection, or of the table as `"schema.table"` (see `add_table`).
            filter: as for `find`; of a table, on the row as its events have it.
            sort: as for `find`.
            limit: as for `find`.
            fields: as for `find`.
            collation: as for `find`.

        Raises:
            TableRefused: the table is not watched.
        """
        checked = check_watchable(name)
        return opening(
            live_query(self._live, checked, filter, sort=sort, limit=limit, fields=fields, collation=collation)
        )

    def close(self) -> None:
        """End all streams and close all connections; later calls raise `StoreClosed`. A second `close` is allowed."""
        try:
            self._live.close()
            self._streams.close()
        finally:
            self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
