"""What a change stream delivers, and when it ends."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import AsyncStore, EventType
from pgdoc.errors import CollectionNotFound, ReplicaIdentityChanged, StreamClosed, StreamError, UnreadableDocument
from tests.integration._async.streams import PATIENCE_S, brief, take, take_to

if TYPE_CHECKING:
    import psycopg

    from pgdoc import AsyncChangeStream


async def test_each_kind_of_change_comes_with_its_images(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        inserted = await store["orders"].insert("o-1", {"total": 5, "items": [1, 2]})
        updated = await store["orders"].update("o-1", {"$set": {"total": 7.5}, "$unset": {"items": ""}})
        replaced = await store["orders"].replace("o-1", {"new": True})
        await store["orders"].delete("o-1")
        insert, update, replace, delete = await take(stream, 4)
    assert brief([insert, update, replace, delete]) == [
        (kind, "orders", "o-1") for kind in ("insert", "update", "replace", "delete")
    ]
    assert (insert.full_document, insert.full_document_before_change) == (inserted, None)
    assert (update.full_document, update.full_document_before_change) == (updated, inserted)
    assert (replace.full_document, replace.full_document_before_change) == (replaced, updated)
    assert (delete.full_document, delete.full_document_before_change) == (None, replaced)
    assert update.update_description == pgdoc.UpdateDescription({"total": 7.5}, ["items"], [], {})
    assert [insert.update_description, replace.update_description, delete.update_description] == [None] * 3


async def test_a_truncate_event_names_only_the_collection(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch("orders", "users") as stream:
        sql.execute("TRUNCATE orders, users")
        events = await take(stream, 2)
    assert sorted(brief(events)) == [("truncate", "orders", None), ("truncate", "users", None)]
    for event in events:
        assert [event.full_document, event.full_document_before_change, event.update_description] == [None] * 3
    assert events[0].resume_token < events[1].resume_token


async def test_an_event_carries_its_transaction(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch("orders", "stock") as stream:
        before = datetime.now(UTC) - timedelta(seconds=1)
        async with store.transaction() as tx:
            await tx["orders"].insert("o-1", {})
            await tx["stock"].insert("s-1", {})
            cursor = await tx.connection.execute("SELECT pg_current_xact_id()::text::bigint")
            ((xid,),) = await cursor.fetchall()
        after = datetime.now(UTC) + timedelta(seconds=1)
        sql.execute("INSERT INTO orders (id, data) VALUES ('o-2', '{}')")
        one, other, next_one = await take(stream, 3)
    assert one.transaction_id == other.transaction_id == xid != next_one.transaction_id
    assert one.timestamp == other.timestamp
    assert before < one.timestamp < next_one.timestamp < after + timedelta(seconds=10)
    assert one.timestamp.tzinfo is UTC
    assert one.resume_token < other.resume_token < next_one.resume_token
    assert one.resume_token.lsn == other.resume_token.lsn


async def test_a_stream_reads_one_several_or_all_collections(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["a"].watch() as one,
        store.watch("a", "B-2") as several,
        store.watch() as everything,
    ):
        for name in ("a", "B-2", "later", "_", "größe"):
            await store[name].insert("1", {})
        sql.execute("INSERT INTO a (id, data) VALUES ('end', '{}')")
        assert [event.collection for event in await take_to(one, "end")] == ["a"]
        assert [event.collection for event in await take_to(several, "end")] == ["a", "B-2"]
        inserted = [event for event in await take_to(everything, "end") if event.event_type is EventType.INSERT]
        assert [event.collection for event in inserted] == ["a", "B-2", "later", "_", "größe"]


async def test_other_tables_schemas_and_rollbacks_are_not_seen(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with (
        AsyncStore(shared_dsn, schema=f"{schema}-other") as other,
        AsyncStore(shared_dsn, schema=schema) as store,
    ):
        await other["orders"].insert("1", {})
        await store["orders"].insert("1", {})
        sql.execute("CREATE TABLE ledger (id text PRIMARY KEY, data jsonb)")
        async with store.watch() as stream, other.watch() as other_stream:
            await other["orders"].insert("2", {})
            sql.execute("INSERT INTO ledger VALUES ('2', '{}')")
            sql.execute("CREATE TABLE made_since (id text PRIMARY KEY, version int)")
            sql.execute("INSERT INTO made_since VALUES ('2', 1)")
            sql.execute("TRUNCATE ledger")
            with sql.transaction(force_rollback=True):
                sql.execute("INSERT INTO orders (id, data) VALUES ('rolled back', '{}')")
            await store["orders"].insert("end", {})
            assert brief(await take_to(stream, "end")) == []
            await other["orders"].insert("end", {})
            assert brief(await take_to(other_stream, "end")) == [("insert", "orders", "2")]


async def test_writes_in_sql_cause_the_same_events(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch("orders", "log") as stream:
        sql.execute("""
            CREATE FUNCTION "log_order"() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              INSERT INTO log (id, data) VALUES (NEW.id || '@' || NEW.version, jsonb_build_object('n', NEW.data->'n'));
              RETURN NULL;
            END $$""")
        sql.execute("CREATE TRIGGER log_order AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION log_order()")
        with sql.cursor() as cursor, cursor.copy("COPY orders (id, data) FROM STDIN") as copy:
            for number in range(3):
                copy.write_row((f"o-{number}", f'{{"n": {number}, "text": "a\\"b"}}'))
        sql.execute("UPDATE orders SET data = data || '{\"n\": 9}' WHERE id >= 'o-1'")
        sql.execute("UPDATE orders SET data = data WHERE id = 'o-0'")
        events = await take(stream, 9)
    rows = ["o-0", "o-1", "o-2"]
    assert brief(events[:3]) == [("insert", "orders", row) for row in rows]
    assert [event.full_document and event.full_document["n"] for event in events[:3]] == [0, 1, 2]
    assert brief(events[3:7]) == [
        ("update", "orders", "o-1"),
        ("update", "orders", "o-2"),
        ("insert", "log", "o-1@2"),
        ("insert", "log", "o-2@2"),
    ]
    assert len({event.transaction_id for event in events[3:7]}) == 1
    described = [event.update_description for event in events if event.event_type is EventType.UPDATE]
    assert [each and each.updated_fields for each in described] == [{"n": 9}, {"n": 9}, {}]
    assert described[2] == pgdoc.UpdateDescription({}, [], [], {})
    assert events[7].full_document is not None
    assert (events[7].full_document.version, events[8].document_id) == (2, "o-0@2")


async def test_collection_names_with_capitals_and_dashes_can_be_watched(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=f"Größe-{schema}") as store, store["Orders-2026"].watch() as stream:
        await store["orders-2026"].insert("lower", {})
        await store["Orders-2026"].insert("upper", {})
        assert brief(await take(stream)) == [("insert", "Orders-2026", "upper")]
        async with store.watch(resume_after=stream.resume_token) as later:
            await store["Orders-2026"].insert("end", {})
            assert brief(await take_to(later, "end")) == []


async def test_events_carry_the_metadata_of_the_writer(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        orders = store["orders"]
        await orders.insert("nobody", {})
        async with store.transaction(metadata={"user": "alice", "n": [1, {"é": None}]}) as tx:
            await tx["orders"].insert("alice", {})
        with pgdoc.metadata(user="bob"):
            await orders.insert("bob", {})
            await orders.insert_many([("bob-many", {})])
            with pgdoc.metadata(request="r-17"):
                await orders.update("bob", {"$set": {"a": 1}})
        with sql.transaction():
            sql.execute("INSERT INTO orders (id, data) VALUES ('not yet', '{}')")
            sql.execute('SELECT pgdoc.set_metadata(\'{"user": "carol"}\')')
            sql.execute("INSERT INTO orders (id, data) VALUES ('carol', '{}')")
            with sql.transaction(force_rollback=True):
                sql.execute('SELECT pgdoc.set_metadata(\'{"user": "mallory"}\')')
                sql.execute("INSERT INTO orders (id, data) VALUES ('mallory', '{}')")
            sql.execute("INSERT INTO orders (id, data) VALUES ('carol again', '{}')")
        sql.execute("INSERT INTO orders (id, data) VALUES ('end', '{}')")
        said = [(event.document_id, event.metadata) for event in await take_to(stream, "end")]
    assert said == [
        ("nobody", {}),
        ("alice", {"user": "alice", "n": [1, {"é": None}]}),
        ("bob", {"user": "bob"}),
        ("bob-many", {"user": "bob"}),
        ("bob", {"user": "bob", "request": "r-17"}),
        ("not yet", {}),
        ("carol", {"user": "carol"}),
        ("carol again", {"user": "carol"}),
    ]


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"metadata": 7}', '{"other": {}}', "", '"\\u0000"'])
async def test_a_malformed_metadata_message_is_ignored(
    shared_dsn: str, schema: str, sql: psycopg.Connection, content: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        with sql.transaction():
            sql.execute("SELECT pg_logical_emit_message(true, 'pgdoc', %s)", [content])
            sql.execute("SELECT pg_logical_emit_message(false, 'pgdoc', %s)", [content])
            sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', '{}')")
        assert [event.metadata for event in await take(stream)] == [{}]


async def test_next_returns_none_after_the_timeout(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch() as stream,
        store.watch() as other,
    ):
        assert await stream.try_next() is None
        assert await stream.next(timeout=0.01) is None
        sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', '{}'), ('o-2', '{}')")
        await take(other, 2)
        assert brief([event for _ in range(2) if (event := await stream.try_next())]) == [
            ("insert", "orders", "o-1"),
            ("insert", "orders", "o-2"),
        ]
        assert await stream.try_next() is None


async def test_a_closed_stream_delivers_nothing(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store["orders"].watch() as stream, store["orders"].watch() as other:
            await store["orders"].insert("o-1", {})
            await store["orders"].insert("o-2", {})
            await take(other, 2)
            (event,) = await take(stream)
            was_closed = stream.closed
            assert stream.resume_token == event.resume_token
        assert (was_closed, stream.closed) == (False, True)
        assert [event async for event in stream] == []
        with pytest.raises(StreamClosed):
            await stream.next()
        with pytest.raises(StreamClosed):
            await stream.try_next()
        await stream.close()
        assert stream.stats().mode == "closed"
        assert stream.resume_token == event.resume_token
        async with store["orders"].watch(resume_after=stream.resume_token) as stream:
            assert [event.document_id for event in await take(stream)] == ["o-2"]


async def test_a_closed_store_ends_its_streams(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        stream = await store["orders"].watch()
        other = await store.watch(resume_after=stream.resume_token, buffer_size=1)
        await store["orders"].insert_many((f"o-{number}", {}) for number in range(100))
        assert brief(await take(stream)) == [("insert", "orders", "o-0")]
    assert stream.closed
    assert other.closed
    with pytest.raises(StreamClosed):
        await other.next()


async def test_watching_a_missing_collection_creates_it_or_fails(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema, auto_create=False) as store:
        with pytest.raises(CollectionNotFound, match="orders"):
            async with store.watch("orders"):
                pass
        assert await store.collections() == []
    async with AsyncStore(shared_dsn, schema=schema) as store:
        async with store.watch("orders", "users"):
            assert await store.collections() == ["orders", "users"]
        with pytest.raises(pgdoc.InvalidName):
            store.watch("no name")
        with pytest.raises(ValueError, match="buffer_size"):
            store.watch(buffer_size=0)
        async with store.transaction() as tx:
            with pytest.raises(StreamError, match="transaction"):
                tx["orders"].watch()


async def test_a_table_without_before_images_ends_its_stream(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await store["orders"].insert("o-1", {})
        await take(stream)
        sql.execute("SET session_replication_role = replica")  # where the event trigger does not refuse it
        sql.execute("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
        sql.execute("RESET session_replication_role")
        await store["orders"].update("o-1", {"$set": {"a": 1}})
        with pytest.raises(ReplicaIdentityChanged, match="orders"):
            await stream.next(PATIENCE_S)
        assert stream.closed
        with pytest.raises(ReplicaIdentityChanged, match="orders"):
            async with store["orders"].watch():
                pass
        async with store.watch():
            pass  # a stream that did not name the collection is not refused


async def test_an_unreadable_document_does_not_end_a_stream(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        sql.execute("INSERT INTO orders (id, data) VALUES ('o-1', jsonb_build_object('n', repeat('9', 5000)::numeric))")
        sql.execute("UPDATE orders SET data = '{\"n\": 1}'")
        inserted, updated = await take(stream, 2)
    assert (inserted.document_id, inserted.event_type) == ("o-1", "insert")
    assert inserted.full_document is not None
    with pytest.raises(UnreadableDocument, match="o-1"):
        _ = inserted.full_document.data
    assert updated.full_document is not None
    assert updated.full_document.data == {"n": 1}
    assert inserted.resume_token < updated.resume_token


async def test_streams_share_no_mutable_state(shared_dsn: str, schema: str) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch() as one,
        store["orders"].watch() as other,
    ):
        with pgdoc.metadata(user={"name": "alice"}):
            await store["orders"].insert("o-1", {"list": [1]})
            await store["orders"].update("o-1", {"$set": {"list": [1, {"a": 2}]}})
        _, update = await take(one, 2)
        expected = update.to_json()
        assert update.full_document is not None
        assert update.full_document_before_change is not None
        assert update.update_description is not None
        update.full_document.data["list"][1]["a"] = "changed"
        update.full_document_before_change.data.clear()
        update.metadata["user"]["name"] = "mallory"
        assert update.update_description.updated_fields == {"list.1": {"a": 2}}
        update.update_description.updated_fields.clear()
        _, same = await take(other, 2)
        assert same.to_json() == expected


async def test_stats_show_the_progress_of_a_stream(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch() as stream,
        store.watch() as other,
    ):
        assert (stream.stats().mode, stream.stats().delivered) == ("live", 0)
        sql.execute("INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(1, 100) AS n")
        sql.execute("INSERT INTO orders (id, data) VALUES ('last', '{}')")
        await take(other, 101)
        assert stream.stats().buffered == 101
        behind = stream.stats().lag_bytes
        await take(stream, 40)
        stats = stream.stats()
        assert (stats.mode, stats.delivered) == ("live", 40)
        assert 61 <= stats.buffered <= 101
        assert 0 < stats.lag_bytes <= behind
        await take(stream, 61)
        while await stream.next(timeout=0.02) is not None or stream.stats().lag_bytes:
            pass
        assert stream.stats() == pgdoc.StreamStats("live", 0, 101, 0)


async def test_a_small_buffer_loses_nothing(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with (
        AsyncStore(shared_dsn, schema=schema) as store,
        store["orders"].watch(buffer_size=7) as stream,
        store["orders"].watch(buffer_bytes=1) as by_bytes,
    ):
        sql.execute("INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(1, 1500) AS n")
        for number in range(1501, 2001):
            sql.execute("INSERT INTO orders (id, data) VALUES (%s, '{}')", [str(number)])
        events = [event async for event in limited(stream, 2000)]
        assert [event.document_id for event in events] == [str(number) for number in range(1, 2001)]
        tokens = [event.resume_token for event in events]
        assert all(one < other for one, other in itertools.pairwise(tokens))
        assert [event.resume_token for event in await take(by_bytes, 2000)] == tokens


async def limited(stream: AsyncChangeStream, count: int) -> Any:
    """Iterate over the first `count` events."""
    async for event in stream:
        yield event
        count -= 1
        if not count:
            return


async def test_many_streams_on_one_store(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        names = [f"c-{number}" for number in range(5)]
        streams = [await store.watch(names[number % 5]) for number in range(100)]
        async with store.transaction() as tx:
            for name in names:
                for number in range(20):
                    await tx[name].insert(str(number), {"n": number})
        for stream in streams:
            assert [event.document_id for event in await take(stream, 20)] == [str(number) for number in range(20)]
            await stream.close()
