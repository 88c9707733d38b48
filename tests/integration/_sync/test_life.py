# Written by .ci/twins.py from tests/integration/_async/test_life.py: change that file, and run it.
"""Collection events (create, rename, drop, invalidate), in order with changes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import CollectionNotFound, StreamClosed
from tests.integration._sync.streams import PATIENCE_S, brief, take, take_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream, ChangeEvent

END = "END"


def collect(stream: ChangeStream) -> list[ChangeEvent]:
    """Read all events of a stream until it ends."""
    events: list[ChangeEvent] = []
    while True:
        try:
            event = stream.next(timeout=PATIENCE_S)
        except StreamClosed:
            return events
        assert event is not None, f"neither an event nor the end after {brief(events)}"
        events.append(event)


def life(events: list[ChangeEvent]) -> list[tuple[str, ...]]:
    """Return each event as kind, collection, and the document id or new name."""
    return [
        (str(event.event_type), event.collection, *(name for name in (event.document_id, event.renamed_to) if name))
        for event in events
    ]


def end_of(store: Store, stream: ChangeStream) -> list[tuple[str, ...]]:
    """Return the events that a stream of all collections has received until now."""
    store["end"].insert(END, {})
    return [event for event in life(take_to(stream, END)) if event != ("create", "end")]


def test_the_library_announces_what_it_does_to_collections(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store.watch() as stream:
        with pgdoc.metadata(user="alice"):
            store.create_collection("orders")
        store.create_collection("orders")
        store["orders"].insert("o-1", {})
        with pgdoc.metadata(user="bob"):
            store.rename_collection("orders", "Old-Orders")
            store["users"].insert("u-1", {})
        store["Old-Orders"].delete("o-1")
        with pgdoc.metadata(user="carol"):
            store.drop_collection("Old-Orders")
        assert not store.drop_collection("Old-Orders")
        events = take(stream, 7)
        assert end_of(store, stream) == []
    assert life(events) == [
        ("create", "orders"),
        ("insert", "orders", "o-1"),
        ("rename", "orders", "Old-Orders"),
        ("create", "users"),
        ("insert", "users", "u-1"),
        ("delete", "Old-Orders", "o-1"),
        ("drop", "Old-Orders"),
    ]
    said = [event.metadata.get("user") for event in events]
    assert said == ["alice", None, "bob", "bob", "bob", None, "carol"]
    for event in (events[0], events[2], events[6]):
        assert [event.document_id, event.full_document, event.full_document_before_change] == [None] * 3
        assert event.update_description is None
    assert [one.resume_token < other.resume_token for one, other in itertools.pairwise(events)] == [True] * 6


def test_ddl_announces_what_it_does_to_collections(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        for name in ("orders", "users", "stock", "log"):
            store.create_collection(name)
        with store.watch() as stream:
            sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', '{}')")
            sql.execute("ALTER TABLE orders RENAME TO sold")
            sql.execute("ALTER INDEX sold RENAME TO orders")  # PostgreSQL accepts a table here
            sql.execute("ALTER TABLE orders ADD COLUMN note text")
            sql.execute("ALTER TABLE orders DROP COLUMN note")
            sql.execute("TRUNCATE orders")
            sql.execute("DROP TABLE orders, users")
            sql.execute("DO 'BEGIN ALTER TABLE stock RENAME TO goods; DROP TABLE log; END'")
            sql.execute("SELECT pgdoc.create_collection(%s, 'again')", [schema])
            assert end_of(store, stream) == [
                ("insert", "orders", "o-1"),
                ("rename", "orders", "sold"),
                ("rename", "sold", "orders"),
                ("truncate", "orders"),
                ("drop", "orders"),
                ("drop", "users"),
                ("rename", "stock", "goods"),
                ("drop", "log"),
                ("create", "again"),
            ]


def test_ddl_stands_between_the_rows_of_its_transaction(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    insert = "INSERT INTO {} (id, data) VALUES ('{}', '{{}}')"
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("a")
        with store.watch() as stream:
            with sql.transaction():
                sql.execute(insert.format("a", "1"))
                sql.execute("ALTER TABLE a RENAME TO b")
                sql.execute(insert.format("b", "2"))
                with sql.transaction(force_rollback=True):
                    sql.execute("ALTER TABLE b RENAME TO c")
                    sql.execute("SELECT pgdoc.create_collection(%s, 'never')", [schema])
                sql.execute("SELECT pgdoc.create_collection(%s, 'a')", [schema])
                with sql.transaction():
                    sql.execute(insert.format("a", "3"))
                    sql.execute("ALTER TABLE b RENAME TO d")
                    sql.execute(insert.format("d", "4"))
                sql.execute("ALTER TABLE d RENAME TO e")
                sql.execute("DROP TABLE a")
                sql.execute(insert.format("e", "5"))
            with sql.transaction(force_rollback=True):
                sql.execute("DROP TABLE e")
            found = end_of(store, stream)
    assert found == [
        ("insert", "a", "1"),
        ("rename", "a", "b"),
        ("insert", "b", "2"),
        ("create", "a"),
        ("insert", "a", "3"),
        ("rename", "b", "d"),
        ("insert", "d", "4"),
        ("rename", "d", "e"),
        ("drop", "a"),
        ("insert", "e", "5"),
    ]


def test_moving_a_table_to_another_schema_is_a_drop_and_a_create(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    with Store(shared_dsn, schema=schema) as store, Store(shared_dsn, schema=f"{schema}-x") as other:
        for name in ("a", "b", "c"):
            store.create_collection(name)
        other.create_collection("x")
        with store.watch() as stream, other.watch() as other_stream, store.watch("a", "b", "c") as three:
            sql.execute(f'ALTER TABLE a SET SCHEMA "{schema}-x"')
            sql.execute(f"INSERT INTO \"{schema}-x\".a (id, data) VALUES (1, '{{}}')")
            sql.execute(f'ALTER SCHEMA "{schema}" RENAME TO "{schema}-y"')
            assert life(collect(three)) == [("drop", "a"), ("drop", "b"), ("drop", "c"), ("invalidate", "c")]
            sql.execute(f'ALTER SCHEMA "{schema}-y" RENAME TO "{schema}"')
            sql.execute(f'DROP SCHEMA "{schema}-x" CASCADE')
            assert end_of(store, stream) == [
                ("drop", "a"),
                ("drop", "b"),
                ("drop", "c"),
                ("create", "b"),
                ("create", "c"),
            ]
            assert end_of(other, other_stream) == [
                ("create", "a"),
                ("insert", "a", "1"),
                ("drop", "a"),
                ("drop", "x"),
            ]


def test_tables_that_are_not_collections_cause_no_events(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store, store.watch() as stream:
        store.create_collection("orders")
        sql.execute("CREATE TABLE ledger (id int)")
        sql.execute("ALTER TABLE ledger RENAME TO book")
        sql.execute("CREATE TEMPORARY TABLE orders_copy (LIKE orders INCLUDING ALL)")
        sql.execute("DROP TABLE book, orders_copy")
        sql.execute("CREATE VIEW seen AS SELECT * FROM orders")
        sql.execute("DROP VIEW seen")
        sql.execute("DROP TRIGGER pgdoc_after_insert ON orders")
        assert end_of(store, stream) == [("create", "orders")]


@pytest.fixture
def stranger(shared_dsn: str, sql: psycopg.Connection, schema: str) -> Iterator[psycopg.Connection]:
    """A connection of a role that may only create schemas."""
    role = f"stranger_{schema}"
    sql.execute(f"CREATE ROLE {role} LOGIN")
    sql.execute(f"GRANT CREATE ON DATABASE {sql.info.dbname} TO {role}")
    try:
        with psycopg.connect(shared_dsn, user=role, autocommit=True) as connection:
            yield connection
    finally:
        sql.execute(f"DROP OWNED BY {role}")
        sql.execute(f"DROP ROLE {role}")


def test_a_role_without_rights_is_not_kept_from_its_ddl(
    shared_dsn: str, schema: str, sql: psycopg.Connection, stranger: psycopg.Connection
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("orders")
        sql.execute(f"ALTER TABLE orders OWNER TO {stranger.info.user}")
        sql.execute(f"GRANT ALL ON SCHEMA {schema} TO {stranger.info.user}")
        with store.watch() as stream:
            stranger.execute("CREATE SCHEMA traps")
            stranger.execute(
                "CREATE FUNCTION traps.current_setting(text, boolean) RETURNS text LANGUAGE sql AS 'SELECT 1 / 0'"
            )
            stranger.execute(f"SET search_path = traps, {schema}, pg_catalog")
            stranger.execute("CREATE TABLE own (id int)")
            stranger.execute("ALTER TABLE own RENAME TO mine")
            stranger.execute("DROP TABLE mine")
            stranger.execute("ALTER TABLE orders RENAME TO taken")
            stranger.execute("DROP TABLE taken")
            assert end_of(store, stream) == [("rename", "orders", "taken"), ("drop", "taken")]


def test_settings_of_a_session_do_not_hide_its_ddl(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store, store.watch() as stream:
        store.create_collection("orders")
        sql.execute("SET pgdoc.names = 'no JSON'")
        sql.execute("SET pgdoc.announcing = 'yes'")
        sql.execute("SET lock_timeout = 1")
        sql.execute("ALTER TABLE orders RENAME TO sold")
        assert end_of(store, stream) == [("create", "orders"), ("rename", "orders", "sold")]


@pytest.mark.parametrize(
    "content",
    [
        '{"collection":',
        '{"collection": 7}',
        '{"collection": []}',
        '{"collection": {}}',
        '{"collection": {"event": "drop", "schema": "SCHEMA", "name": 7}}',
        '{"collection": {"event": ["drop"], "schema": "SCHEMA", "name": "orders"}}',
        '{"collection": {"event": "rename", "schema": "SCHEMA", "name": "orders"}}',
        '{"collection": {"event": "insert", "schema": "SCHEMA", "name": "orders"}}',
        '{"collection": {"event": "drop", "schema": "elsewhere", "name": "orders"}}',
    ],
)
def test_a_malformed_message_causes_no_event_and_ends_no_stream(
    shared_dsn: str, schema: str, sql: psycopg.Connection, content: str
) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        whole = f'{{"collection": {{"event": "drop", "schema": "{schema}", "name": "orders"}}}}'
        with sql.transaction():
            sql.execute("SELECT pg_logical_emit_message(true, 'pgdoc', %s)", [content.replace("SCHEMA", schema)])
            sql.execute("SELECT pg_logical_emit_message(false, 'pgdoc', %s)", [whole])
            sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', '{}')")
        assert life(take(stream)) == [("insert", "orders", "o-1")]


# The end of a stream ------------------------------------------------------------------------------------------------


def test_a_stream_ends_when_all_its_collections_are_gone(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        one, both, everything = store["a"].watch(), store.watch("a", "b"), store.watch()
        store["a"].insert("1", {})
        store.drop_collection("a")
        sql.execute("ALTER TABLE b RENAME TO c")
        store["a"].insert("2", {})
        expected = [("insert", "a", "1"), ("drop", "a")]
        assert life(collect(one)) == [*expected, ("invalidate", "a")]
        assert life(collect(both)) == [*expected, ("rename", "b", "c"), ("invalidate", "b")]
        later = [*expected, ("rename", "b", "c"), ("create", "a"), ("insert", "a", "2")]
        assert end_of(store, everything) == later
        for stream in (one, both):
            assert (stream.closed, stream.stats().mode) == (True, "closed")
            assert [event for event in stream] == []
            with pytest.raises(StreamClosed):
                stream.try_next()
        everything.close()


def test_a_loop_over_a_stream_ends_after_its_invalidate(shared_dsn: str, schema: str) -> None:
    with (
        Store(shared_dsn, schema=schema) as store,
        store["orders"].watch() as stream,
        store.watch() as everything,
    ):
        store["orders"].insert("o-1", {})
        store.drop_collection("orders")
        store["orders"].insert("o-2", {})
        take_to(everything, "o-2")  # so the event is in the stream's buffer too
        events: list[ChangeEvent] = []
        for event in stream:
            events.append(event)
            assert len(events) <= 3, "the stream continues after its end"
    drop, invalidate = events[1:]
    assert life(events) == [("insert", "orders", "o-1"), ("drop", "orders"), ("invalidate", "orders")]
    assert invalidate.resume_token == stream.resume_token > drop.resume_token
    assert (invalidate.transaction_id, invalidate.timestamp) == (drop.transaction_id, drop.timestamp)
    assert invalidate.to_dict()["full_document"] is None


def test_a_collection_that_comes_back_in_time_keeps_its_stream_open(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    with Store(shared_dsn, schema=schema) as store, store.watch("a", "b") as stream:
        store.drop_collection("a")
        store.rename_collection("b", "a")
        store["a"].insert("1", {})
        store.create_collection("b")
        with sql.transaction():
            sql.execute("DROP TABLE a, b")
            sql.execute("SELECT pgdoc.create_collection(%s, 'a')", [schema])
        assert life(collect(stream)) == [
            ("drop", "a"),
            ("rename", "b", "a"),
            ("insert", "a", "1"),
            ("create", "b"),
            ("drop", "a"),
            ("drop", "b"),
            ("invalidate", "b"),
        ]
        with store.watch("a", "b", resume_after=stream.resume_token) as later:
            store["a"].insert("2", {})
            assert life(take(later, 2)) == [("create", "a"), ("insert", "a", "2")]


def test_resuming_after_every_single_token_goes_on_just_there(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    names = ("a", "b", "c")
    with Store(shared_dsn, schema=schema) as store:
        start = (_watched(store, *names)).resume_token
        store["a"].insert("1", {})
        with sql.transaction():
            sql.execute('SELECT pgdoc.set_metadata(\'{"user": "bob"}\')')
            sql.execute("INSERT INTO b (id, data) VALUES ('2', '{}'), ('3', '{}')")
            sql.execute("DROP TABLE a")
            sql.execute("TRUNCATE b")
        store["other"].insert("x", {})
        sql.execute("ALTER TABLE b RENAME TO a")
        store["a"].insert("4", {})
        sql.execute("DROP TABLE a, c")
        store["other"].insert("y", {})
        with store.watch(*names, resume_after=start) as stream:
            events = collect(stream)
        expected = [event.to_dict() for event in events]
        assert life(events) == [
            ("insert", "a", "1"),
            ("insert", "b", "2"),
            ("insert", "b", "3"),
            ("drop", "a"),
            ("truncate", "b"),
            ("rename", "b", "a"),
            ("insert", "a", "4"),
            ("drop", "a"),
            ("drop", "c"),
            ("invalidate", "c"),
        ]
        for index, event in enumerate(events[:-1], start=1):
            token = event.resume_token if index % 2 else str(event.resume_token)
            with store.watch(*names, resume_after=token, buffer_size=index) as stream:
                assert [event.to_dict() for event in collect(stream)] == expected[index:]
        with store.watch(*names, resume_after=events[-1].resume_token) as stream:
            assert store.collections() == ["other"]  # resuming creates no collection
            store["c"].insert("5", {})
            assert life(take(stream, 2)) == [("create", "c"), ("insert", "c", "5")]


def _watched(store: Store, *names: str) -> ChangeStream:
    with store.watch(*names) as stream:
        return stream


def test_a_stream_can_resume_after_its_collection_was_dropped(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema, auto_create=False) as store:
        store.create_collection("orders")
        stream = _watched(store, "orders")
        store["orders"].insert("o-1", {})
        store.drop_collection("orders")
        with store["orders"].watch(resume_after=stream.resume_token) as resumed:
            assert [kind for kind, *_ in life(collect(resumed))] == ["insert", "drop", "invalidate"]
        with pytest.raises(CollectionNotFound):
            store["orders"].watch()


def test_a_full_buffer_keeps_the_order(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store, store["b"].watch(buffer_size=2) as stream:
        store.create_collection("a")
        store.drop_collection("b")
        sql.execute("ALTER TABLE a RENAME TO b")
        assert life(collect(stream)) == [("drop", "b"), ("invalidate", "b")]
        with store["b"].watch(resume_after=stream.resume_token, buffer_size=2) as later:
            sql.execute("INSERT INTO b (id, data) SELECT n, '{}' FROM generate_series(1, 20) AS n")
            for number in range(3):
                sql.execute(f"ALTER TABLE {'bc'[number % 2]} RENAME TO {'cb'[number % 2]}")
                store["c" if number % 2 == 0 else "b"].insert(f"again {number}", {})
            events = life(collect(later))
    assert events[0] == ("rename", "a", "b")
    assert events[1:21] == [("insert", "b", str(number)) for number in range(1, 21)]
    assert events[21:] == [("rename", "b", "c"), ("invalidate", "b")]


# Without event triggers ------------------------------------------------------------------------------------


def test_without_event_triggers_ddl_in_sql_is_reported_late_and_in_order(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql:
        with Store(dsn, plugin="auto") as store:
            assert (store.status()).follows_ddl
            sql.execute("DROP EVENT TRIGGER pgdoc_alters")
            sql.execute("ALTER EVENT TRIGGER pgdoc_drops DISABLE")
            assert not (store.status()).follows_ddl
            with store.watch() as stream:
                store.create_collection("orders")
                sql.execute("ALTER TABLE docs.orders RENAME TO sold")
                store.rename_collection("sold", "orders")
                sql.execute("DROP TABLE docs.orders")
                store.create_collection("orders")
                store.drop_collection("orders")
                found = end_of(store, stream)
            sql.execute("ALTER EVENT TRIGGER pgdoc_drops ENABLE")
            store.migrate()
            assert (store.status()).follows_ddl
    renamed: list[tuple[str, ...]] = [("rename", "orders", "sold"), ("rename", "sold", "orders")]
    assert found == [("create", "orders"), *renamed, ("drop", "orders"), ("create", "orders"), ("drop", "orders")]


def test_ddl_inside_of_ddl_hides_no_renaming(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql:
        with Store(dsn) as store:
            store.create_collection("orders")
            sql.execute("CREATE TABLE log (id int)")
            sql.execute(
                "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.log'::regclass "
                "AND attname = 'n') "
                "THEN ALTER TABLE public.log ADD COLUMN n int; END IF; END $$"
            )
            sql.execute("CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION note()")  # before pgdoc's own
            sql.execute("ALTER TABLE log DROP COLUMN IF EXISTS n")
            with store.watch() as stream:
                sql.execute("ALTER EVENT TRIGGER audit DISABLE")
                sql.execute("ALTER TABLE log DROP COLUMN IF EXISTS n")
                sql.execute("ALTER EVENT TRIGGER audit ENABLE")
                sql.execute("ALTER TABLE docs.orders RENAME TO sold")
                assert end_of(store, stream) == [("rename", "orders", "sold")]
