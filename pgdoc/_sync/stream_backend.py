# Written by .ci/twins.py from pgdoc/_async/stream_backend.py: change that file, and run it.
"""What the streams of a store share: the hub, the open consumers, and their questions to the server."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._sync.table import Table
from pgdoc.changes.router import ANY_TABLE
from pgdoc.consumers.consumer import Consumer
from pgdoc.crud.guard import missing
from pgdoc.crud.statements import part_statement
from pgdoc.database.errors import map_error, one_line
from pgdoc.database.rights import may_not_create
from pgdoc.database.slot_losses import HistoryLimits
from pgdoc.database.table_errors import needs_event_triggers, not_added
from pgdoc.decoding.message_rows import MESSAGES
from pgdoc.errors import (
    CollectionNotFound,
    DatabaseError,
    PgdocError,
    PublicationIncomplete,
    ReplicaIdentityChanged,
    ServerUnreachable,
    StoreClosed,
    TableRefused,
)
from pgdoc.model.key_order import KeyOrder
from pgdoc.model.positions import Lsn, commit_lsn_of
from pgdoc.model.table_names import is_table_name, table_address, titled
from pgdoc.replication.checks import (
    FLUSH_LIMIT_S,
    check_exact,
    check_flush,
    check_published,
    hidden_documents,
    history_lost,
)
from pgdoc.replication.connection import quote_identifier
from pgdoc.replication.recovery import fetch_of_reader, source_of_consumers
from pgdoc.replication.registry import read_existence
from pgdoc.replication.session import try_reader
from pgdoc.runtime.census import CENSUS
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.runtime.primitives import call, sleep, wait, wait_for
from pgdoc.sql import statement
from pgdoc.streams.figures import StreamFigures
from pgdoc.streams.hub import CLOSE_LIMIT_S, Hub

if TYPE_CHECKING:
    from pgdoc._sync.connections import Connections
    from pgdoc.changes.fanout import Subscription
    from pgdoc.changes.life import Existence
    from pgdoc.changes.router import Selection
    from pgdoc.database.rights import Caller
    from pgdoc.model.positions import Position
    from pgdoc.model.tokens import SnapshotProgress
    from pgdoc.replication.source import Cluster, Source
    from pgdoc.streams.delivery import Delivery
    from pgdoc.streams.feed import Feed, HubFeed
    from pgdoc.streams.options import StreamOptions

__all__ = ["StreamBackend"]

logger = logging.getLogger("pgdoc.stream")

_FLUSH_POLL_S = 0.01
_FOLLOW_S = 10.0
_FOLLOW_POLL_S = 0.05
_LAST_LSN = (1 << 64) - 1


class StreamBackend:
    """Starts the streams of one store, and ends them when the store is closed."""

    def __init__(self, connections: Connections, source: Source, *, auto_create: bool) -> None:
        self._connections = connections
        self.codec = connections.codec
        self._auto_create = auto_create
        self.hub = Hub(source)
        self._consumers: set[Consumer] = set()
        self._closing = False

    @property
    def caller(self) -> Caller:
        """The role of the store."""
        return self._connections.caller

    def prepare(self, selection: Selection, *, create: bool = True) -> None:
        """Make sure that what is to be watched exists, and that its changes have before images.

        A stream that resumes passes `create=False`: it reports what became of what is missing.

        Raises:
            PublicationIncomplete: pgoutput would leave changes out, and the role may not repair that.
            TableRefused: wal2json would leave out rows of a watched table while it has another name.
        """
        self.hub.check_usable()
        schema, names = self.hub.source.schema, selection.names
        self._check_followed(names)
        self.fetch("follow_tables")
        found: dict[str, bool] = dict(self.fetch("watchable", schema, names))
        for name in sorted((selection.collections or frozenset()) - found.keys()) if create else ():
            self._create(schema, name)
        changed = sorted(name for name, is_full in found.items() if not is_full)
        if changed and selection.collections is None:  # only streams that name it are refused
            logger.warning(
                "%s is not REPLICA IDENTITY FULL: its next change ends this stream", self._titled(changed[0])
            )
        elif changed:
            address = table_address(changed[0]) if is_table_name(changed[0]) else (schema, changed[0])
            raise ReplicaIdentityChanged(
                f"{self._titled(changed[0])} is not REPLICA IDENTITY FULL, so its changes have no before image: "
                f"run ALTER TABLE {'.'.join(map(quote_identifier, address))} REPLICA IDENTITY FULL"
            )
        self._publish(schema, names)
        if selection.topics:
            self._publish_messages()

    def prepare_start(self, selection: Selection, options: StreamOptions) -> None:
        """Prepare what a stream or a consumer with these options wants; what exists already creates nothing."""
        start, consumer = options.resume_after, options.consumer
        resumes = start is not None or (consumer is not None and self.knows(consumer))
        self.prepare(selection, create=not resumes)
        if options.snapshot and not resumes:
            self._check_row_security(selection)

    def _check_followed(self, names: list[str] | None) -> None:
        """Refuse to watch tables through wal2json where nothing tells at once that SQL has renamed one."""
        tables = [name for name in names or () if is_table_name(name)]
        if tables and self.hub.source.plugin == "wal2json":
            ((follows_ddl,),) = self.fetch("follows_ddl")
            if not follows_ddl:
                raise needs_event_triggers(tables[0])

    def _titled(self, name: str) -> str:
        return titled(name, self.hub.source.schema)

    def _create(self, schema: str, name: str) -> None:
        """Create a collection that is to be watched; a table is only watched once it was added."""
        if is_table_name(name):
            of_schema, table = table_address(name)
            if of_schema == schema and self.fetch("watchable", schema, [table]):
                raise TableRefused(name, "it is a collection", f"watch it as {table!r}")
            raise not_added(name)
        if not self._auto_create:
            raise missing(titled(name, schema))
        try:
            self.fetch("create", schema, name)
        except DatabaseError as exc:
            raise may_not_create(exc.__cause__, self._titled(name), self.caller) or exc from exc.__cause__

    def _publish(self, schema: str, names: list[str] | None) -> None:
        """Make sure that pgoutput sends every collection: someone may have changed the publication."""
        ((fault,),) = self.fetch("publication_fault", schema, names)
        if fault is None or self.hub.source.plugin == "wal2json":
            return
        try:
            self.fetch("publish", schema)
            ((fault,),) = self.fetch("publication_fault", schema, names)
        except PgdocError as exc:
            fault = f"{fault} ({exc})"
        if fault is not None and self._plugin() == "pgoutput":
            raise PublicationIncomplete(f'the publication "pgdoc" {fault}')

    def _publish_messages(self) -> None:
        """Make sure that pgoutput sends messages, as `_publish` does for collections.

        Also while wal2json is used, if pgoutput may take its place later, which would leave them out without a word.
        """
        ((is_published,),) = self.fetch("messages_published")
        if is_published or self.hub.source.plugin == "wal2json":
            return
        fault = "lacks pgdoc.messages: run SELECT pgdoc.publish_messages() as its owner"
        try:
            self.fetch("publish_messages")
        except PgdocError as exc:
            ((other,),) = self.fetch("publication_fault", self.hub.source.schema, [ANY_TABLE])
            if other is None or self._plugin() == "pgoutput":
                raise PublicationIncomplete(f'the publication "pgdoc" {fault} ({exc})') from exc

    def _plugin(self) -> str:
        source = self.hub.source
        if source.plugin != "auto":
            return source.plugin
        return self.hub.plugin or (call(try_reader, source)).plugin

    def count_stream(self, owner: object, selection: Selection, delivery: Delivery, consumer: str | None) -> None:
        """Have metrics count a stream until its `owner` is freed."""
        CENSUS.enter(owner, StreamFigures(self.hub.source, selection, consumer, delivery))

    def _check_row_security(self, selection: Selection) -> None:
        """Refuse a snapshot of which a policy may hide documents from the role of the store."""
        for (name,) in self.fetch("row_security", self.hub.source.schema, selection.names):
            raise hidden_documents(self._titled(name))

    def wal_end(self) -> tuple[int, int]:
        """Return the LSNs up to which WAL is inserted, and flushed."""
        ((inserted, flushed, _),) = self.fetch("wal_end")
        return inserted, flushed

    def begin(self, feed: HubFeed) -> tuple[int, int]:
        """Let a new stream begin at the present end of the WAL; return that as `wal_end` does.

        A server that was promoted continues the WAL elsewhere, so this waits until the hub has followed to it.

        Raises:
            ServerUnreachable: the hub has not followed.
        """
        deadline = time.monotonic() + _FOLLOW_S
        while True:
            ((inserted, flushed, timeline),) = self.fetch("wal_end")
            if feed.begin_at(inserted, timeline):
                return inserted, flushed
            self._let_hub_follow(timeline, deadline)

    def cluster(self) -> Cluster:
        """Return the cluster that the hub reads, once it is on the timeline that the server is on.

        Raises:
            ServerUnreachable: the hub has not followed to a server that was promoted.
        """
        deadline = time.monotonic() + _FOLLOW_S
        while True:
            ((timeline,),) = self.fetch("timeline")
            cluster = self.hub.subscriptions.cluster
            if timeline == cluster.timeline:
                return cluster
            self._let_hub_follow(timeline, deadline)

    def _let_hub_follow(self, timeline: int, deadline: float) -> None:
        """Wait a moment for the hub to follow to the timeline of the documents; raise an error after `deadline`."""
        if time.monotonic() > deadline:
            raise ServerUnreachable(
                f"streams read timeline {self.hub.subscriptions.cluster.timeline}, but documents are on timeline "
                f"{timeline}: a failover is going on, or two servers take writes; open the stream again"
            )
        self.hub.ask()  # a reader on a standby notices with what it receives
        sleep(_FOLLOW_POLL_S)

    def flush(self, flushed: int, to: int) -> None:
        """Return when the WAL, flushed up to `flushed`, is flushed up to `to`."""
        if flushed < to:
            self.fetch("flush")
        deadline = time.monotonic() + FLUSH_LIMIT_S
        while flushed < to:
            check_flush(deadline)
            sleep(_FLUSH_POLL_S)
            _, flushed = self.wal_end()

    def oldest(self) -> int | None:
        """Return the oldest LSN that streams can resume at; `None` without history."""
        ((oldest,),) = self.fetch_of_reader("oldest_bookmark")
        return None if oldest is None else int(oldest)

    def check_history(self, position: Position) -> None:
        """Raise `HistoryLost` if history does not reach back to `position`."""
        oldest = self.oldest()
        if oldest is None or oldest > position.commit_lsn:
            (limits,) = self.fetch_of_reader("history_limits")
            raise history_lost(position.commit_lsn, oldest, HistoryLimits(*limits))

    def check_published(self, position: Position, selection: Selection) -> None:
        """Raise `HistoryLost` unless the plugin sends every change that a stream can want since `position`.

        The error has the oldest position since which it does.
        """
        schema, names = self.hub.source.schema, selection.names
        if self.hub.plugin == "pgoutput":
            found = [self.fetch("published_since", schema, names)]
            if selection.topics:
                found.append(self.fetch("published_since", schema, [".".join(MESSAGES)]))
            check_published(position.commit_lsn, max(since for ((since,),) in found), schema)
        else:
            ((since,),) = self.fetch("exact_since", schema, names)
            check_exact(position.commit_lsn, since, schema)

    def existence(self, position: Position, selection: Selection) -> Existence | None:
        """Return which collections and tables of a stream exist at `position`; `None` for a stream on all."""
        if selection.vital is None:
            return None
        at = (str(Lsn(position.commit_lsn)), str(Lsn(position.lsn)))
        rows = self.fetch("existed", self.hub.source.schema, selection.names, *at)
        return read_existence(position.commit_lsn, rows)

    def names(self, selection: Selection) -> list[str]:
        """Return the names of the collections, and perhaps tables, of a stream on all of them."""
        return sorted(row[0] for row in self.fetch("watchable", self.hub.source.schema, selection.names))

    def knows(self, consumer: str) -> bool:
        """Return whether this durable consumer exists."""
        return bool(self.fetch_of_consumers("knows", consumer, rights="SELECT, INSERT, UPDATE, DELETE"))

    def source_of_consumers(self) -> Source:
        """See the function of the same name."""
        source = self.hub.source
        return source if source.primary is None else call(source_of_consumers, source)

    def open_consumer(self, subscription: Subscription, options: StreamOptions) -> Consumer:
        """Open a durable consumer; return when it reads changes, or is a standby."""
        assert options.consumer is not None  # noqa: S101 (the caller has checked)
        consumer = Consumer(
            self.hub,
            self.source_of_consumers(),
            options.consumer,
            subscription,
            company=self._consumers,
            begin_at=options.resume_after,
            wait=options.wait,
            recreate=options.on_lost == "recreate",
            snapshot=options.first_snapshot,
        )
        self._consumers -= {each for each in self._consumers.copy() if each.has_ended}
        self._consumers.add(consumer)
        # Checked after adding: close() sets the flag before it copies the set, so one of the two sees the other.
        if self._closing:
            raise StoreClosed("the store is closed: open the stream with another store")
        try:
            self.hub.keep_history()
            wait(consumer.start())
        except BaseException:
            consumer.leave()
            raise
        return consumer

    def close(self) -> None:
        """End all streams, within about `CLOSE_LIMIT_S`."""
        deadline = time.monotonic() + CLOSE_LIMIT_S
        self._closing = True
        consumers = self._consumers.copy()
        for consumer in consumers:
            consumer.leave()
        wait_for(self.hub.begin_to_close(), CLOSE_LIMIT_S)
        for consumer in consumers:
            call(consumer.close, max(0.1, deadline - time.monotonic()))

    def fetch_of_consumers(self, name: str, *params: Any, rights: str) -> list[tuple[Any, ...]]:
        """Fetch rows about consumers; the error for a role that may not read them says what to grant: `rights`."""
        try:
            return self.fetch(name, *params)
        except DatabaseError as exc:
            if exc.sqlstate != "42501" or not isinstance(exc.__cause__, psycopg.Error):
                raise
            found, advice = one_line(exc.__cause__), self.caller.to_have_consumers(rights)
            raise DatabaseError(f"{found}: {advice}", sqlstate=exc.sqlstate) from exc

    def fetch_of_reader(self, name: str) -> list[tuple[Any, ...]]:
        """Fetch the rows of a block of `streams.sql` from the server whose WAL is read: it has the slots."""
        source = self.hub.source
        return self.fetch(name) if source.primary is None else call(fetch_of_reader, source, name)

    def read_part(self, collection: str, *params: Any, limit_s: float) -> list[tuple[Any, ...]]:
        """Read a part of a snapshot within `limit_s` seconds; no rows if there is no such collection."""
        table = Table(self._connections, self.hub.source.schema, collection, auto_create=True)
        with deadline_scope(limit_s):
            try:
                return table.read(part_statement(table.name), params, prepare=False)
            except CollectionNotFound:
                return []

    def read_watched(
        self, table: str, after: list[str] | None, most: int, most_bytes: int, *, limit_s: float
    ) -> list[tuple[Any, ...]]:
        """Read a part of a watched table within `limit_s` seconds; no rows if there is no such table."""
        params = (*table_address(table), after, most, most_bytes)
        rights = self.caller.to_read_table(*table_address(table))
        return self.fetch("watched_part", *params, limit_s=limit_s, subject=titled(table), rights=rights)

    def order_of(self, progress: SnapshotProgress, feed: Feed | None) -> KeyOrder | None:
        """Return the order of the keys of the table of which a snapshot had delivered rows where `feed` begins."""
        name = progress.remaining[0]
        if feed is None or not progress.document_id or not is_table_name(name):
            return None
        return self.key_order(name, commit_lsn_of(feed.begun_at))

    def key_order(self, table: str, at: int = _LAST_LSN) -> KeyOrder:
        """Return the order of the keys of the watched table that has this name, or had it at an LSN."""
        rows = self.fetch("key_orders", table, str(Lsn(at)))
        return KeyOrder(rows[0][0] if rows else ("printed",))

    def fetch(
        self, name: str, *params: Any, limit_s: float | None = None, subject: str = "", rights: str = ""
    ) -> list[tuple[Any, ...]]:
        """Fetch the rows of a block of `streams.sql`.

        The time is limited, by default to that of `deadline_scope`, so that a silent network does not keep a stream
        from opening. `subject` is what an error is about, by default the schema, and `rights` as for `map_error`.
        """
        try:
            with deadline_scope(limit_s):
                return self._connections.fetch(statement("streams", name).encode(), params)
        except psycopg.Error as exc:
            raise map_error(exc, subject or f'schema "{self.hub.source.schema}"', rights=rights) from exc
