"""The registry: what it says at each position, and where it is not believed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import HistoryLost, Store
from pgdoc.database.migrate import downgrade, migrate
from tests.background import Background
from tests.integration.own_server.words import wait_until
from tests.synchronous import no_standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import ChangeEvent, ChangeStream
    from pgdoc.server import LocalServer
    from tests.security.conftest import SharedDatabase

PATIENCE_S = 30
HAND_MADE = """
CREATE TABLE docs.hand (
  id text PRIMARY KEY, data jsonb NOT NULL,
  version bigint NOT NULL DEFAULT 1, replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now())
"""


def take(stream: ChangeStream, count: int) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    while len(events) < count:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, brief(events)
        events.append(event)
    return events


def rest(stream: ChangeStream) -> list[ChangeEvent]:
    """Read a stream that ends."""
    return list(stream)


def brief(events: list[ChangeEvent]) -> list[tuple[str, str, str | None]]:
    return [(event.event_type.value, event.collection, event.document_id) for event in events]


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


# What exists where a stream resumes ---------------------------------------------------------------------------------


def test_a_stream_ends_with_its_last_collection_in_the_order_of_the_commits(
    dsn: str, sql: psycopg.Connection, plugin: str
) -> None:
    """The transaction that drops `a` first commits last, so the LSNs of the two drops are in the other order."""
    with Store(dsn, plugin=plugin) as store, psycopg.connect(dsn) as slow:
        for name in ("a", "b", "c"):
            store.create_collection(name)
        with store.watch("a", "b") as stream:
            start = stream.resume_token
            slow.execute("DROP TABLE docs.a")
            sql.execute("INSERT INTO docs.b (id, data) VALUES ('b-1', '{}')")
            sql.execute("DROP TABLE docs.b")
            sql.execute("INSERT INTO docs.c (id, data) VALUES ('c-1', '{}')")
            slow.commit()
            live = rest(stream)
        assert brief(live) == [
            ("insert", "b", "b-1"),
            ("drop", "b", None),
            ("drop", "a", None),
            ("invalidate", "a", None),
        ]
        for number, after in enumerate([start, *(event.resume_token for event in live[:-1])]):
            with store.watch("a", "b", resume_after=after) as stream:
                assert rest(stream) == live[number:]


def test_a_stream_that_resumes_inside_a_transaction_knows_what_it_drops_later(
    dsn: str, sql: psycopg.Connection, plugin: str
) -> None:
    with Store(dsn, plugin=plugin) as store:
        for name in ("a", "b"):
            store.create_collection(name)
        with store.watch("a", "b") as stream:
            start = stream.resume_token
            with sql.transaction():
                sql.execute("INSERT INTO docs.a (id, data) VALUES ('a-1', '{}')")
                sql.execute("DROP TABLE docs.a")
                sql.execute("INSERT INTO docs.b (id, data) VALUES ('b-1', '{}')")
                sql.execute("DROP TABLE docs.b")
            live = rest(stream)
        kinds = [kind for kind, _, _ in brief(live)]
        assert kinds == ["insert", "drop", "insert", "drop", "invalidate"]
        for number, after in enumerate([start, *(event.resume_token for event in live[:-1])]):
            with store.watch("a", "b", resume_after=after) as stream:
                assert rest(stream) == live[number:]


def test_a_consumer_knows_what_was_dropped_while_it_was_closed(dsn: str, sql: psycopg.Connection, plugin: str) -> None:
    with Store(dsn, plugin=plugin) as store:
        for name in ("a", "b"):
            store.create_collection(name)
        with store.watch("a", "b", consumer="keeper") as stream:
            sql.execute("DROP TABLE docs.a")
            assert brief(take(stream, 1)) == [("drop", "a", None)]
            stream.ack()
        sql.execute("DROP TABLE docs.b")
        with store.watch("a", "b", consumer="keeper") as stream:
            assert brief(rest(stream)) == [("drop", "b", None), ("invalidate", "b", None)]
        assert store.drop_consumer("keeper")


# DDL that no event trigger follows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("catalog", ["owner"], indirect=True)
def test_a_plain_catalog_reports_ddl_of_sql_late_and_loses_no_row(db: SharedDatabase) -> None:
    owner = db.connect("owner")
    with db.store("streamer", plugin="auto") as store, store.watch() as stream:
        assert store.status().plugin == "pgoutput"
        start = stream.resume_token
        owner.execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
        owner.execute("ALTER TABLE docs.orders RENAME TO sold")
        owner.execute("INSERT INTO docs.sold (id, data) VALUES ('2', '{}')")
        live = take(stream, 3)
        owner.execute("INSERT INTO docs.sold (id, data) VALUES ('3', '{}')")
        owner.execute("DROP TABLE docs.sold")
        live += take(stream, 2)
    assert brief(live) == [
        ("insert", "orders", "1"),
        ("insert", "orders", "2"),  # the new name is not known yet
        ("rename", "orders", None),
        ("insert", "sold", "3"),
        ("drop", "sold", None),
    ]
    with db.store("streamer", plugin="auto") as store, store.watch(resume_after=start) as stream:
        assert take(stream, 5) == live


@pytest.mark.parametrize("catalog", ["owner"], indirect=True)
@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("ddl", ["ALTER TABLE docs.orders RENAME TO sold", "DROP TABLE docs.orders"])
def test_wal2json_never_skips_rows_of_a_table_that_was_renamed_behind_its_back(db: SharedDatabase, ddl: str) -> None:
    owner = db.connect("owner")
    owner.execute("SELECT pgdoc.create_collection('docs', 'other')")
    with db.store("streamer", plugin="wal2json") as store:
        with store["orders"].watch() as named, store["other"].watch() as other:
            start = named.resume_token
            owner.execute(ddl.encode())
            with pytest.raises(HistoryLost, match="wal2json"):
                named.next(timeout=PATIENCE_S)
            owner.execute("INSERT INTO docs.other (id, data) VALUES ('1', '{}')")
            assert brief(take(other, 1)) == [("insert", "other", "1")]  # it did not name the table
        with pytest.raises(HistoryLost, match="wal2json") as raised:
            store["orders"].watch(resume_after=start)
        assert raised.value.oldest_available is not None
        with store["other"].watch(resume_after=start) as other:
            assert brief(take(other, 1)) == [("insert", "other", "1")]


@pytest.mark.parametrize("catalog", ["owner"], indirect=True)
def test_a_table_in_the_place_of_a_dropped_collection_is_not_taken_for_it(db: SharedDatabase) -> None:
    owner = db.connect("owner")
    with db.store("streamer", plugin="auto") as store, store.watch() as stream:
        owner.execute("DROP TABLE docs.orders")
        owner.execute(HAND_MADE.replace("hand", "orders").encode())
        owner.execute("ALTER TABLE docs.orders REPLICA IDENTITY FULL")
        owner.execute("INSERT INTO docs.orders (id, data) VALUES ('impostor', '{}')")
        owner.execute("SELECT pgdoc.register('docs.orders')")
        owner.execute("INSERT INTO docs.orders (id, data) VALUES ('own', '{}')")
        found = brief(take(stream, 3))
    assert found == [("drop", "orders", None), ("create", "orders", None), ("insert", "orders", "own")]


# Registration -------------------------------------------------------------------------------------------------------


def test_a_registered_table_gets_the_checks_of_a_collection(sql: psycopg.Connection) -> None:
    sql.execute("CREATE SCHEMA docs")
    sql.execute(HAND_MADE.encode())
    sql.execute("SELECT pgdoc.register('docs.hand')")
    for row in ("('', '{}')", "('a', '[]')", "('a', '{\"_id\": 1}')", f"('{'x' * 1025}', '{{}}')"):
        with pytest.raises(psycopg.errors.CheckViolation):
            sql.execute(f"INSERT INTO docs.hand (id, data) VALUES {row}".encode())


def test_a_table_with_rows_that_are_no_documents_is_not_registered(sql: psycopg.Connection) -> None:
    sql.execute("CREATE SCHEMA docs")
    sql.execute(HAND_MADE.encode())
    sql.execute("INSERT INTO docs.hand (id, data) VALUES ('a', '[1]')")
    with pytest.raises(psycopg.errors.CheckViolation, match="pgdoc_data"):
        sql.execute("SELECT pgdoc.register('docs.hand')")
    assert sql.execute("SELECT count(*) FROM pgdoc.registry").fetchone() == (0,)


@pytest.mark.parametrize(
    ("ddl", "fault"),
    [
        ("DROP COLUMN data", "needs the columns"),
        ("RENAME COLUMN version TO revision", "needs the columns"),
        ("ALTER COLUMN created_at DROP DEFAULT", "needs the columns"),
        ("ALTER COLUMN data DROP NOT NULL", "needs the columns"),
        ("DROP CONSTRAINT orders_pkey", "primary key"),
        ("REPLICA IDENTITY DEFAULT", "no before images"),
        ("SET UNLOGGED", "unlogged"),
    ],
)
def test_an_alter_table_that_breaks_a_collection_is_refused(sql: psycopg.Connection, ddl: str, fault: str) -> None:
    sql.execute("SELECT pgdoc.create_collection('docs', 'orders')")
    sql.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")  # or PostgreSQL refuses some of them by itself
    with pytest.raises(psycopg.Error, match=fault) as raised:
        sql.execute(f"ALTER TABLE docs.orders {ddl}".encode())
    assert raised.value.sqlstate == "PGD03"
    sql.execute("SELECT pgdoc.unregister('docs.orders')")
    sql.execute(f"ALTER TABLE docs.orders {ddl}".encode())


@pytest.mark.parametrize(
    "ddl",
    ["CREATE TABLE docs.child () INHERITS (docs.orders)", "CREATE TABLE docs.child (LIKE docs.orders INCLUDING ALL)"],
)
def test_a_collection_has_no_child_tables(sql: psycopg.Connection, ddl: str) -> None:
    """Their rows would be documents, and no events."""
    sql.execute("SELECT pgdoc.create_collection('docs', 'orders')")
    with pytest.raises(psycopg.Error, match="can't inherit") as raised:  # noqa: PT012 (one of the two is refused)
        sql.execute(ddl.encode())
        sql.execute("ALTER TABLE docs.child INHERIT docs.orders")
    assert raised.value.sqlstate == "PGD03"


def test_a_collection_becomes_no_partition(sql: psycopg.Connection) -> None:
    sql.execute("SELECT pgdoc.create_collection('docs', 'orders')")
    sql.execute("CREATE TABLE docs.parent (LIKE docs.orders INCLUDING ALL) PARTITION BY LIST (id)")
    with pytest.raises(psycopg.Error, match="not a plain table") as raised:
        sql.execute("ALTER TABLE docs.parent ATTACH PARTITION docs.orders DEFAULT")
    assert raised.value.sqlstate == "PGD03"


def test_other_columns_are_no_concern_of_pgdoc(dsn: str, sql: psycopg.Connection, plugin: str) -> None:
    with Store(dsn, plugin=plugin) as store:
        store.create_collection("orders")
        sql.execute("ALTER TABLE docs.orders ADD COLUMN total int GENERATED ALWAYS AS ((data ->> 'n')::int) STORED")
        sql.execute("ALTER TABLE docs.orders ADD COLUMN note text, ADD CHECK (total < 100)")
        with store["orders"].watch() as stream:
            store["orders"].insert("o-1", {"n": 1})
            store["orders"].update("o-1", {"$set": {"n": 2}})
            store["orders"].delete("o-1")
            events = take(stream, 3)
    assert [event.event_type.value for event in events] == ["insert", "update", "delete"]
    assert events[1].full_document_before_change is not None
    assert events[1].full_document_before_change.data == {"n": 1}


# Migration and visibility -------------------------------------------------------------------------------------------


def test_a_position_before_the_registry_is_read_as_it_was_then(private_dsn: str, plugin: str) -> None:
    """Columns told a collection then, and messages what became of it; later messages are not believed."""
    downgrade(private_dsn, "0006")
    with psycopg.connect(private_dsn, autocommit=True) as sql:
        sql.execute("SELECT pgdoc.follow_ddl()")
        sql.execute(
            "SELECT pg_create_logical_replication_slot('pgdocb_' || oid || '_1_a', 'pgoutput') "
            "FROM pg_database WHERE datname = current_database()"
        )
        ((start,),) = sql.execute("SELECT pg_current_wal_insert_lsn()::text").fetchall()
        sql.execute("SELECT pgdoc.create_collection('docs', 'first')")
        sql.execute("INSERT INTO docs.first (id, data) VALUES ('1', '{}')")
        sql.execute("ALTER TABLE docs.first RENAME TO second")
        sql.execute("INSERT INTO docs.second (id, data) VALUES ('2', '{}')")
        migrate(private_dsn)
        sql.execute("INSERT INTO docs.second (id, data) VALUES ('3', '{}')")
        sql.execute("""SELECT pg_logical_emit_message(true, 'pgdoc',
            '{"collection": {"event": "drop", "schema": "docs", "name": "second", "left": []}}')""")
        sql.execute("ALTER TABLE docs.second RENAME TO third")
        sql.execute("INSERT INTO docs.third (id, data) VALUES ('4', '{}')")
    whole = [
        ("create", "first", None),
        ("insert", "first", "1"),
        ("rename", "first", None),
        ("insert", "second", "2"),
        ("insert", "second", "3"),
        ("rename", "second", None),
        ("insert", "third", "4"),
    ]
    with Store(private_dsn, plugin=plugin) as store:
        with store.watch(resume_after=start) as stream:
            events = take(stream, len(whole))
        assert brief(events) == whole
        for number, event in enumerate(events[:-1], 1):
            with store.watch(resume_after=event.resume_token) as stream:
                assert take(stream, len(whole) - number) == events[number:]
        with store.watch("first", resume_after=start) as stream:
            assert [kind for kind, _, _ in brief(rest(stream))] == ["create", "insert", "rename", "invalidate"]


def test_a_collection_that_became_visible_late_is_not_missed(private_server: LocalServer, plugin: str) -> None:
    """Its transaction waits for a synchronous standby: it has committed in the WAL, and nobody sees it yet."""
    dsn = private_server.conninfo
    migrate(dsn)
    with (
        psycopg.connect(dsn, autocommit=True) as sql,
        Store(dsn, plugin=plugin) as first,
        first.watch(),
        _waiting(private_server, sql) as end_wait,
        Store(dsn, plugin=plugin) as store,
        store.watch() as stream,
    ):
        end_wait()
        sql.execute("INSERT INTO docs.late (id, data) VALUES ('1', '{}')")
        assert brief(take(stream, 1)) == [("insert", "late", "1")]


@contextlib.contextmanager
def _waiting(server: LocalServer, sql: psycopg.Connection) -> Iterator[Callable[[], None]]:
    """Create a collection whose commit waits for a standby; the function that is yielded ends the wait."""
    sql.execute("SET synchronous_commit = local")
    with no_standby(server.conninfo), psycopg.connect(server.conninfo, autocommit=True) as connection:
        of = "FROM pg_stat_activity WHERE pid = %s"
        pid = [connection.info.backend_pid]

        def end_wait() -> None:
            sql.execute("SELECT pg_cancel_backend(%s)", pid)
            wait_until(lambda: sql.execute(f"SELECT state {of}", pid).fetchone() == ("idle",))

        with Background(connection.execute, "SELECT pgdoc.create_collection('docs', 'late')"):
            wait_until(lambda: sql.execute(f"SELECT wait_event {of}", pid).fetchone() == ("SyncRep",))
            try:
                yield end_wait
            finally:
                end_wait()
