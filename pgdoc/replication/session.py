"""Reading the WAL from a position: the one primitive behind the hub, catch-up readers and consumers.

To read from P: copy the newest bookmark that is not beyond P into a temporary slot of the walsender's own session,
check the *copy*, advance it to P, and START there. PostgreSQL would silently move a start before the slot's
`confirmed_flush_lsn` forward; pgdoc raises `HistoryLost` instead.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.changes.assembler import Assembler
from pgdoc.changes.change import Burst
from pgdoc.changes.registry import TableAdded
from pgdoc.decoding.message_rows import MESSAGES
from pgdoc.decoding.plugins import PLUGINS, Decoder
from pgdoc.errors import PgdocError, PublicationIncomplete
from pgdoc.model.positions import Lsn, commit_lsn_of
from pgdoc.replication.checks import check_exact, check_published
from pgdoc.replication.connection import connect, is_decoding, map_replication_error, preflight, quote_literal
from pgdoc.replication.reader import Reader
from pgdoc.replication.recovery import TimelineGuard, check_same_server, is_in_recovery, wait_for_catalog, writing
from pgdoc.replication.registry import fetch_registry, follow_tables, wait_for_registrations
from pgdoc.replication.routes import STRAIGHT, Route, as_unsent
from pgdoc.replication.slot_start import fetch_confirmed, take_position
from pgdoc.replication.slots import advance, copy_slot, fetch_lsn, slot_name
from pgdoc.replication.source import Cluster, SlotStart, Source
from pgdoc.replication.standby import StandbyCheck
from pgdoc.replication.traffic import Tally
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger("pgdoc.stream")


class ReplicationSession(NamedTuple):
    """A reader, and the decoder and assembler that hold the state of what it reads."""

    reader: Reader
    decoder: Decoder
    assembler: Assembler
    cluster: Cluster
    slot_start: SlotStart
    route: Route = STRAIGHT
    guard: TimelineGuard | None = None  # of a reader on a standby

    @property
    def has_arrived(self) -> bool:
        """Whether the session has returned everything up to the end of its route."""
        return self.route.until is not None and self.assembler.watermark >= self.route.until

    @property
    def has_wrong_plugin(self) -> bool:
        """Whether pgoutput would have been chosen, had a table been as it was when the registry was read."""
        registry = self.assembler.registry
        return registry.may_change_plugin and registry.needs_pgoutput and not self.slot_start.refusal

    @property
    def is_used_up(self) -> bool:
        """Whether another session is to go on: this one has arrived, or holds much memory between transactions."""
        if not self.reader.has_large_buffer:
            return self.has_arrived
        return self.has_arrived or (self.assembler.open_transaction is None and self.decoder.begun is None)


def read_burst(session: ReplicationSession, timeout_s: float) -> tuple[Burst, bool]:
    """Read, decode and assemble the frames that have arrived, waiting up to `timeout_s` for the first.

    The calling thread owns `session`; `Reader.wake` ends the wait early.

    Returns:
        The burst, and whether any frame came. Without a frame the burst is empty and its watermark is unchanged.

    Raises:
        UnsentChange: the server can't send the next change along the session's route.
    """
    try:
        frames = session.reader.read(timeout_s)
    except PgdocError as exc:
        unsent = as_unsent(exc, session.assembler.open_transaction or session.decoder.begun)
        if unsent is None:
            raise
        unsent.received = session.assembler.complete_below(unsent.lsn)
        raise unsent from exc
    if frames and session.guard is not None:
        session.guard.check()
    burst = session.assembler.feed(session.decoder.decode(frames))
    until = session.route.until
    if until is None:
        return burst, bool(frames)
    if not frames:
        session.reader.ask()
    return _only_below(burst, until), bool(frames)


def _only_below(burst: Burst, until: int) -> Burst:
    """Return the part of a burst that belongs to transactions that commit below an LSN."""
    partial = burst.partial_commit_lsn
    return Burst(
        [change for change in burst.changes if commit_lsn_of(change.position) < until],
        min(burst.watermark, until),
        None if partial is None or partial >= until else partial,
    )


def open_reader(  # noqa: PLR0913 (each has its own reason to differ between hub and catch-up)
    source: Source,
    at: int | None,
    *,
    purpose: str = "",
    prefix: str = "pgdocr",
    check: Callable[[Cluster], None] | None = None,
    begin_history: bool = True,
    route: Route = STRAIGHT,
    names: Sequence[str] | None = None,
) -> ReplicationSession:
    """Stream every transaction whose commit record is at or after `at`.

    `at` is clamped to the end of the WAL, beyond which PostgreSQL would lose changes; `None` stands for that end.
    `check` gets the cluster that the connection leads to, before anything is opened there. `begin_history` creates a
    bookmark if there is none. `names` are what a detour through pgoutput must not miss, see `Selection.names`.

    Raises:
        HistoryLost, SlotBlocked: see `take_position`.
        ReplicationUnavailable, ServerUnreachable: the server can't be read.
    """

    def take(connection: psycopg.Connection[Any], slot: str) -> SlotStart:
        slot_start = take_position(connection, source, slot, at, begin_history=begin_history, plugin=route.plugin)
        if route.plugin is not None:
            check_detour(connection, source, slot_start, names)
        elif at is not None:
            check_publication(connection, source, slot_start)
        return slot_start

    while True:
        try:
            return _open_reader(source, take, purpose=purpose, prefix=prefix, check=check, route=route)
        except TableAdded as exc:  # the next attempt finds it before it chooses
            logger.info("opening another reader: %s", exc)


def renew_reader(  # noqa: PLR0913 (as above)
    source: Source,
    session: ReplicationSession,
    at: int,
    *,
    purpose: str = "",
    prefix: str = "pgdocr",
    check: Callable[[Cluster], None] | None = None,
) -> ReplicationSession:
    """Open a second reader, at `at`, on a copy of the temporary slot that `session` reads.

    The copy holds back the WAL from `at` on, once `session` is closed. `at` is the watermark of `session`.
    """
    plugin = session.slot_start.plugin

    def take(connection: psycopg.Connection[Any], slot: str) -> SlotStart:
        copy_slot(connection, session.reader.slot, slot, temporary=True, plugin=plugin)
        advance(connection, slot, fetch_confirmed(connection, slot), at)
        return SlotStart(at, plugin, session.slot_start.refusal)

    return _open_reader(source, take, purpose=purpose, prefix=prefix, check=check)


def _open_reader(  # noqa: PLR0913 (as above)
    source: Source,
    take: Callable[[psycopg.Connection[Any], str], SlotStart],
    *,
    purpose: str,
    prefix: str,
    check: Callable[[Cluster], None] | None,
    route: Route = STRAIGHT,
) -> ReplicationSession:
    """Open a reader of the temporary slot that `take` creates on the given connection, with the given name."""
    with contextlib.ExitStack() as opened:
        plain = opened.enter_context(contextlib.closing(connect(source.conninfo, replication=False, purpose=purpose)))
        preflight(plain, allows_standby=source.primary is not None)
        source.wants_failover(plain.info.server_version)  # refuses a server that can't do what was asked for
        connection = opened.enter_context(
            contextlib.closing(connect(source.conninfo, replication=True, purpose=purpose))
        )
        try:
            on_standby = source.primary is not None and is_in_recovery(connection)
            if on_standby:  # only a replication connection can ask for the timeline
                wait_for_catalog(connection)
                plain.close()
                plain = opened.enter_context(
                    contextlib.closing(connect(source.conninfo, replication=True, purpose=purpose))
                )
            cluster = identify(connection)
            if check is not None:
                check(cluster)
            slot = slot_name(connection, prefix)
            slot_start = take(connection, slot)
            if source.primary is not None:
                check_same_server(plain, slot)
            standby = StandbyCheck(plain, closes=True)
            session = begin_reading(connection, source, slot, slot_start, cluster, standby=standby, route=route)
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
        if on_standby:
            session = session._replace(guard=TimelineGuard(plain, cluster.timeline))
        if session.has_wrong_plugin:
            session.reader.close()
            raise TableAdded("a table was changed while its plugin was chosen", needs_pgoutput=True)
        opened.pop_all()  # the reader closes both
        return session


def begin_reading(  # noqa: PLR0913 (what a session consists of)
    connection: psycopg.Connection[Any],
    source: Source,
    slot: str,
    slot_start: SlotStart,
    cluster: Cluster,
    *,
    standby: StandbyCheck,
    route: Route = STRAIGHT,
) -> ReplicationSession:
    """Begin to stream a slot on this connection."""
    plugin = PLUGINS[slot_start.plugin]
    selects = slot_start.plugin == "wal2json"
    if selects:
        wait_for_registrations(connection)
    registry = fetch_registry(connection, source)
    watched = registry.tables
    if selects and route.part.only is None:
        registry.asked, registry.may_change_plugin = watched, source.plugin == "auto"
    only = route.part.only
    part = route.part if only is None else route.part._replace(only=registry.with_partitions(only))
    reader = Reader(
        connection,
        slot,
        slot_start.at,
        plugin.options(source.schema, part, watched),
        is_decoding=partial(is_decoding, source.conninfo),
        standby=standby,
        tally=Tally(source, slot),
    )
    assembler = Assembler(slot_start.at, registry)
    return ReplicationSession(reader, plugin.decoder(source.schema), assembler, cluster, slot_start, route)


def try_reader(source: Source) -> SlotStart:
    """Open a reader and close it again, which leaves nothing on the server; return how it was read."""
    session = open_reader(source, None, purpose=f"status {source.schema}", begin_history=False)
    session.reader.close()
    return session.slot_start


def identify(connection: psycopg.Connection[Any]) -> Cluster:
    """Ask a replication connection which cluster and database it leads to."""
    found = connection.execute(statement("replication", "database")).fetchone()
    assert found is not None  # noqa: S101 (a session has a database)
    row = connection.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None  # noqa: S101 (the protocol promises one)
    timeline = int(row.timeline)
    if timeline == 1:
        return Cluster(int(row.systemid), timeline, (), found.oid, found.name, tuple(found.former))
    history = connection.execute(f"TIMELINE_HISTORY {timeline}").fetchone()
    assert history is not None  # noqa: S101
    text = history.content if isinstance(history.content, str) else bytes(history.content).decode()
    fields = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    switches = tuple((int(line[0]), int(Lsn.parse(line[1]))) for line in fields)
    return Cluster(int(row.systemid), timeline, switches, found.oid, found.name, tuple(found.former))


def check_publication(connection: psycopg.Connection[Any], source: Source, slot_start: SlotStart) -> None:
    """Refuse to read through pgoutput from before its publication was created.

    When a table joined it counts for the streams on that table: see `AsyncStreamBackend.check_published`.
    """
    if slot_start.plugin == "pgoutput":
        since = fetch_lsn(connection, f"pgdoc.published_since({quote_literal(source.schema)}, '{{}}')")
        check_published(slot_start.at, since, source.schema)


def check_detour(
    connection: psycopg.Connection[Any], source: Source, slot_start: SlotStart, names: Sequence[str] | None
) -> None:
    """Refuse to read a transaction through a plugin that would leave out changes; `names` as for `open_reader`.

    Raises:
        PublicationIncomplete, HistoryLost: it would.
    """
    listed = "NULL" if names is None else f"ARRAY[{', '.join(map(quote_literal, sorted(names)))}]::pg_catalog.text[]"
    arguments = f"{quote_literal(source.schema)}, {listed}"
    if slot_start.plugin != "pgoutput":
        with writing(connection, source) as primary:
            follow_tables(primary)
            since = fetch_lsn(primary, f"pgdoc.exact_since({arguments})")
        check_exact(slot_start.at, since, source.schema)
        return
    of_messages = f"pgdoc.published_since({quote_literal(source.schema)}, '{{{'.'.join(MESSAGES)}}}')"
    check_published(slot_start.at, fetch_lsn(connection, of_messages), source.schema)
    messages = f"CASE WHEN NOT ({statement('streams', 'messages_published')}) THEN 'lacks pgdoc.messages' END"
    row = connection.execute(f"SELECT coalesce(pgdoc.publication_fault({arguments}), {messages}) AS fault").fetchone()
    if row is not None and row.fault is not None:
        raise PublicationIncomplete(f'the publication "pgdoc" {row.fault}')
    check_published(slot_start.at, fetch_lsn(connection, f"pgdoc.published_since({arguments})"), source.schema)
