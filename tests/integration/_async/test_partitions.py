"""Collections with partitions: their life, what is refused, their indexes, and what SQL does to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql as compose

from pgdoc import AsyncStore, InvalidInput
from pgdoc.database import expiry
from pgdoc.database.expiry import connect_sweeper, sweep
from pgdoc.errors import DatabaseError, DuplicateDocument, PgdocError, ReplicaIdentityChanged, StreamClosed
from tests.integration._async.streams import PATIENCE_S, brief, take, take_to

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'orders'::regclass ORDER BY inhrelid"
LEFT = """
SELECT relname FROM pg_class
WHERE relkind IN ('i', 'I') AND strpos(relname, '.') > 0 AND relnamespace = quote_ident(%s)::regnamespace
"""
FIVE = [f"o-{number}" for number in range(5)]


@pytest.fixture
def parts(sql: psycopg.Connection, schema: str) -> list[str]:
    """The names of the partitions of a new collection `orders`, as SQL."""
    sql.execute("SELECT pgdoc.create_collection(%s, 'orders', NULL, NULL, NULL, 3)", [schema])
    return [name for (name,) in sql.execute(PARTITIONS).fetchall()]


@pytest.fixture
def as_replica(sql: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """A session whose DDL no event trigger follows."""
    sql.execute("SET session_replication_role = replica")
    yield sql
    sql.execute("RESET session_replication_role")


async def fill(store: AsyncStore) -> None:
    for key in FIVE:
        await store["orders"].insert(key, {"n": int(key[2:])})


async def test_documents_are_spread_and_are_one_collection(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        orders = await store.create_collection("orders", partitions=4)
        await orders.insert_many((f"o-{number:03}", {"n": number}) for number in range(100))
        counts = sql.execute("SELECT count(*) FROM orders GROUP BY tableoid").fetchall()
        assert len(counts) == 4
        assert [document.id async for document in orders.find(sort="_id", limit=3)] == ["o-000", "o-001", "o-002"]
        assert await store.collections() == ["orders"]
        events = await take(stream, 101)
    assert brief(events)[0] == ("create", "orders", None)
    assert sorted(event.document_id or "" for event in events[1:]) == [f"o-{number:03}" for number in range(100)]
    assert {event.collection for event in events} == {"orders"}
    positions = [event.resume_token for event in events]
    assert len(set(map(str, positions))) == 101


@pytest.mark.parametrize("partitions", [0, 257, -1, True, 2.0, "4"])
async def test_a_number_of_partitions_that_makes_no_sense_is_refused(
    shared_dsn: str, schema: str, partitions: Any
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        with pytest.raises(InvalidInput, match="partitions must be a number from 1 to 256"):
            await store.create_collection("orders", partitions=partitions)


async def test_a_collection_keeps_its_number_of_partitions(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for partitions in (2, None, 2):
            await store.create_collection("orders", partitions=partitions)
        await store.create_collection("plain")
        for name, found in ("orders", 2), ("plain", 0):
            with pytest.raises(DatabaseError, match=f"exists with {found} partitions, not 3"):
                await store.create_collection(name, partitions=3)


async def test_a_long_name_leaves_room_for_those_of_partitions(shared_dsn: str, schema: str) -> None:
    name = "ä" * 31
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        await store.create_collection(name, partitions=256)
        await store[name].insert("o-1", {})
        assert brief(await take(stream, 2)) == [("create", name, None), ("insert", name, "o-1")]


async def test_a_collection_can_be_renamed_and_its_name_used_again(
    shared_dsn: str, schema: str, parts: list[str]
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        await fill(store)
        start = (await take(stream, 5))[0].resume_token
        await store.rename_collection("orders", "sold")
        await store.create_collection("orders", partitions=2)
        await store["sold"].update("o-1", {"$set": {"n": 7}})
        await store["orders"].insert("o-1", {})
        expected = [
            ("rename", "orders", None),
            ("create", "orders", None),
            ("update", "sold", "o-1"),
            ("insert", "orders", "o-1"),
        ]
        assert brief(await take(stream, 4)) == expected
        async with store.watch(resume_after=start) as resumed:
            assert brief(await take(resumed, 8)) == [("insert", "orders", key) for key in FIVE[1:]] + expected
    assert len(parts) == 3


async def test_a_dropped_collection_ends_its_stream(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await fill(store)
        assert await store.drop_collection("orders")
        kinds = [event.event_type.value for event in await take(stream, 7)]
        assert kinds == ["insert"] * 5 + ["drop", "invalidate"]
        with pytest.raises(StreamClosed):
            await stream.next(PATIENCE_S)
    assert sql.execute("SELECT FROM pg_class WHERE relname = ANY (%s)", [parts]).fetchall() == []


async def test_truncation_is_one_event(shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        await store.create_collection("plain")
        await fill(store)
        await take(stream, 6)
        sql.execute("TRUNCATE plain, orders")
        sql.execute(f"TRUNCATE orders, {parts[0]}".encode())
        await store["plain"].insert("end", {})
        events = await take_to(stream, "end")
        assert sorted(brief(events[:2])) == [("truncate", "orders", None), ("truncate", "plain", None)]
        assert brief(events[2:]) == [("truncate", "orders", None)]
        for number, event in enumerate(events):
            async with store.watch(resume_after=event.resume_token) as resumed:
                assert brief(await take_to(resumed, "end")) == brief(events[number + 1 :])


REFUSED = {
    "TRUNCATE {part}": "can't be truncated by itself",
    "TRUNCATE {part}, orders": "can't be truncated by itself",
    "DROP TABLE {part}": "can't be dropped by itself",
    "ALTER TABLE {part} RENAME TO other": "its partitions can't be",
    "ALTER TABLE {part} SET SCHEMA public": "its partitions can't be",
    "ALTER TABLE orders SET SCHEMA public": "its partitions can't be",
    "ALTER TABLE orders DETACH PARTITION {part}": "its partitions can't be",
    "ALTER TABLE {part} REPLICA IDENTITY DEFAULT": "no before images",
    "ALTER TABLE {part} SET UNLOGGED": "is unlogged",
    "SELECT pgdoc.add_table('{part}')": "it is a partition of the collection",
    "SELECT pgdoc.add_table('orders')": "it is a collection",
    "SELECT pgdoc.register('{part}')": "it is not a plain table",
}


@pytest.mark.parametrize("statement", REFUSED)
async def test_sql_that_would_hide_changes_is_refused(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection, statement: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        await fill(store)
        with pytest.raises(psycopg.Error, match=REFUSED[statement]):
            sql.execute(statement.format(part=parts[0]).encode())
        await store["orders"].insert("end", {})
        assert brief(await take_to(stream, "end")) == [("insert", "orders", key) for key in FIVE]


async def test_sql_that_changes_no_partition_is_not(parts: list[str], sql: psycopg.Connection) -> None:
    for statement in (
        "ALTER TABLE {part} SET (fillfactor = 50)",
        "CREATE INDEX ON {part} (version)",
        "ALTER TABLE orders ADD COLUMN more int",
        "TRUNCATE orders",
        "UPDATE {part} SET data = '{{}}'",
    ):
        sql.execute(statement.format(part=parts[0]).encode())
    assert sql.execute("SELECT pgdoc.is_followed(), pgdoc.is_equipped('orders')").fetchone() == (True, True)


async def test_writes_to_a_partition_are_changes_of_the_collection(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        await fill(store)
        for part in parts:
            sql.execute(f"UPDATE {part} SET data = '{{}}'".encode())
        events = await take(stream, 10)
        assert sorted(brief(events[5:])) == [("update", "orders", key) for key in FIVE]
        assert {event.full_document.version for event in events[5:] if event.full_document} == {2}
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="cannot change the id"):
            sql.execute(f"UPDATE {parts[0]} SET id = id || 'x'".encode())


@pytest.mark.parametrize("statement", ["DETACH PARTITION {part}", "SET SCHEMA public"])
async def test_what_no_event_trigger_refuses_ends_the_collection(
    shared_dsn: str, schema: str, parts: list[str], as_replica: psycopg.Connection, statement: str
) -> None:
    async with AsyncStore(shared_dsn, schema=schema, plugin="pgoutput") as store, store["orders"].watch() as stream:
        await fill(store)
        await take(stream, 5)
        as_replica.execute(f"ALTER TABLE orders {statement.format(part=parts[0])}".encode())
        as_replica.execute("SELECT pgdoc.follow_tables()")
        assert [event.event_type.value for event in await take(stream, 2)] == ["drop", "invalidate"]
    if "SCHEMA" in statement:
        as_replica.execute("DROP TABLE public.orders")


async def test_a_partition_that_is_detached_concurrently_ends_the_collection_until_it_is_back(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema, plugin="pgoutput") as store:
        async with store["orders"].watch() as stream:
            await fill(store)
            await take(stream, 5)
            with pytest.raises(psycopg.Error, match="its partitions can't be"):
                sql.execute(f"ALTER TABLE orders DETACH PARTITION {parts[0]} CONCURRENTLY".encode())
            sql.execute("SELECT pgdoc.follow_tables()")
            assert [event.event_type.value for event in await take(stream, 2)] == ["drop", "invalidate"]
        with pytest.raises(psycopg.Error, match="being detached"):
            sql.execute("SELECT pgdoc.register('orders')")
        sql.execute(f"ALTER TABLE orders DETACH PARTITION {parts[0]} FINALIZE".encode())
        sql.execute(f"ALTER TABLE orders ATTACH PARTITION {parts[0]} FOR VALUES WITH (MODULUS 3, REMAINDER 0)".encode())
        sql.execute("SELECT pgdoc.register('orders')")
        assert [document.id async for document in store["orders"].find(sort="_id")] == FIVE


async def test_a_partition_without_before_images_ends_its_stream(
    shared_dsn: str, schema: str, parts: list[str], as_replica: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        await fill(store)
        await take(stream, 5)
        for part in parts:
            as_replica.execute(f"ALTER TABLE {part} REPLICA IDENTITY DEFAULT".encode())
        await store["orders"].update("o-1", {"$set": {"n": 7}})
        with pytest.raises(ReplicaIdentityChanged, match="orders"):
            await stream.next(PATIENCE_S)
        with pytest.raises(ReplicaIdentityChanged, match="orders"):
            async with store["orders"].watch():
                pass
        assert as_replica.execute("SELECT pgdoc.register('orders')").fetchone() == (True,)
        async with store["orders"].watch() as again:
            await store["orders"].update("o-2", {"$set": {"n": 7}})
            assert brief(await take(again)) == [("update", "orders", "o-2")]


async def test_partitions_made_in_sql_can_become_a_collection(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    sql.execute("CREATE TABLE users (LIKE orders INCLUDING ALL) PARTITION BY HASH (id)")
    sql.execute("CREATE TABLE even PARTITION OF users FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
    with pytest.raises(psycopg.Error, match="has another modulus"):
        sql.execute("SELECT pgdoc.register('users')")
    sql.execute("CREATE TABLE odd PARTITION OF users FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        sql.execute("INSERT INTO users (id, data) VALUES ('before', '{}')")
        sql.execute("SELECT pgdoc.register('users')")
        await store["users"].insert_many((key, {}) for key in FIVE)
        events = brief(await take(stream, 6))
        assert events[0] == ("create", "users", None)
        assert sorted(events[1:]) == [("insert", "users", key) for key in FIVE]
    assert len(parts) == 3


@pytest.mark.parametrize(
    ("definition", "fault"),
    [
        ("LIST (id)", "only PARTITION BY HASH"),
        ("RANGE (id)", "only PARTITION BY HASH"),
        ("HASH (id, version)", "only PARTITION BY HASH"),
        ("HASH (id)", "it has 0 partitions"),
    ],
)
async def test_other_partitioned_tables_are_refused(
    parts: list[str], sql: psycopg.Connection, definition: str, fault: str
) -> None:
    sql.execute(f"CREATE TABLE users (LIKE orders INCLUDING DEFAULTS) PARTITION BY {definition}".encode())
    with pytest.raises(psycopg.Error, match=fault):
        sql.execute("SELECT pgdoc.register('users')")
    assert len(parts) == 3


async def test_a_foreign_partition_is_refused(parts: list[str], sql: psycopg.Connection) -> None:
    try:
        sql.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
    except psycopg.Error as exc:
        pytest.skip(f"this server has no postgres_fdw: {exc}")
    sql.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw")
    sql.execute("CREATE TABLE users (LIKE orders INCLUDING ALL) PARTITION BY HASH (id)")
    sql.execute("ALTER TABLE users DROP CONSTRAINT users_pkey")
    sql.execute("CREATE FOREIGN TABLE far PARTITION OF users FOR VALUES WITH (MODULUS 1, REMAINDER 0) SERVER nowhere")
    with pytest.raises(psycopg.Error, match=r"its partition .*far is not a plain table"):
        sql.execute("SELECT pgdoc.register('users')")
    sql.execute("DROP SERVER nowhere CASCADE")
    assert len(parts) == 3


async def test_a_collection_can_become_a_partitioned_table_and_come_back(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store.watch() as stream:
        await fill(store)
        sql.execute("SELECT pgdoc.unregister('orders')")
        sql.execute(f"ALTER TABLE orders DETACH PARTITION {parts[0]}".encode())
        sql.execute(f"TRUNCATE {parts[0]}, {parts[1]}".encode())
        sql.execute(f"ALTER TABLE orders ATTACH PARTITION {parts[0]} FOR VALUES WITH (MODULUS 3, REMAINDER 0)".encode())
        sql.execute("SELECT pgdoc.register('orders')")
        await store["orders"].insert("end", {})
        kinds = [kind for kind, _, _ in brief(await take_to(stream, "end"))]
        assert kinds == ["insert"] * 5 + ["drop", "create"]


async def test_an_index_is_built_for_all_partitions(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        orders = store["orders"]
        await orders.insert_many((f"{number:05}", {"n": number, "tags": [number % 7]}) for number in range(5_000))
        before = [index.name for index in await orders.indexes()]
        assert await orders.create_index("n") == "n"
        assert await orders.create_index("n") == "n"
        (index,) = await orders.indexes()
        assert (index.valid, index.paths, before) == (True, ("n",), [])
        assert index.size_bytes > 50_000
        plan = await orders.explain({"n": 77}, sort="n")
        assert "Seq Scan" not in plan
        assert [document.id async for document in orders.find({"n": {"$lt": 3}}, sort="n")] == [
            "00000",
            "00001",
            "00002",
        ]
        assert await orders.drop_index("n")
        assert await orders.indexes() == []
    assert sql.execute(LEFT, [schema]).fetchall() == []
    assert len(parts) == 3


async def test_what_an_interrupted_build_has_left_is_built_again_or_dropped(
    shared_dsn: str, schema: str, parts: list[str], sql: psycopg.Connection
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].create_index("n")
        made = sql.execute(LEFT, [schema]).fetchall()
        for drop in (False, True):
            roots = sql.execute(LEFT + " AND relkind = 'I'", [schema]).fetchall()
            for (root,) in roots:  # as if the server had stopped before the indexes were joined
                children = sql.execute(
                    "SELECT i.inhrelid::regclass::text, pg_get_indexdef(i.inhrelid) FROM pg_inherits i "
                    "WHERE i.inhparent = %s::regclass",
                    [f'{schema}."{root}"'],
                ).fetchall()
                sql.execute(compose.SQL("DROP INDEX {}").format(compose.Identifier(schema, root)))
                for _, definition in children:
                    sql.execute(definition.encode())
            assert await store["orders"].indexes() == []
            if drop:
                await store["orders"].drop_index("n")
            else:
                await store["orders"].create_index("n")
                assert sorted(sql.execute(LEFT, [schema]).fetchall()) == sorted(made)
                assert [index.valid for index in await store["orders"].indexes()] == [True]
    assert sql.execute(LEFT, [schema]).fetchall() == []
    assert len(parts) == 3


async def test_a_unique_index_is_refused(shared_dsn: str, schema: str, parts: list[str]) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        with pytest.raises(InvalidInput, match="has partitions, and can't have a unique index on mail"):
            await store["orders"].create_index("mail", unique=True)
        async with store.transaction() as tx:
            with pytest.raises(InvalidInput, match="unique"):
                await tx["orders"].create_index("mail", unique=True)
            await tx["orders"].create_index("mail")
        assert [index.valid for index in await store["orders"].indexes()] == [True]
        await store["orders"].insert("o-1", {})
        with pytest.raises(DuplicateDocument) as raised:
            await store["orders"].insert("o-1", {})
    assert raised.value.document_id == "o-1"
    assert len(parts) == 3


async def test_documents_expire(
    own_schema: dict[str, Any], sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "INTERVAL_S", 86_400.0)
    moments = {"old": datetime.now(UTC) - timedelta(hours=2), "young": datetime.now(UTC)}
    async with AsyncStore(**own_schema) as store:
        orders = await store.create_collection("orders", partitions=3)
        await orders.create_index("seen", expire_after=timedelta(hours=1))
        await orders.insert_many(
            (f"{name}-{number}", {"seen": moment.isoformat()})
            for name, moment in moments.items()
            for number in range(20)
        )
        async with orders.watch() as stream:
            with connect_sweeper(own_schema["conninfo"], "test") as connection:
                assert sum(found.deleted for found in sweep(connection, own_schema["schema"], takes_turns=False)) == 20
            events = await take(stream, 20)
        assert {(event.event_type.value, (event.metadata or {}).get("pgdoc")) for event in events} == {
            ("delete", "expired")
        }
        assert {document.id[:5] async for document in orders.find()} == {"young"}
    assert sql.execute("SELECT count(*) FROM orders").fetchone() == (20,)


async def test_a_snapshot_and_the_stream_after_it_have_each_document_once(
    shared_dsn: str, schema: str, parts: list[str]
) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await store["orders"].insert_many((f"{number:03}", {}) for number in range(50))
        async with store["orders"].watch(snapshot=True) as stream:
            await store["orders"].insert("end", {})
            ids = [event.document_id for event in await take_to(stream, "end") if event.document_id is not None]
        assert sorted(ids) == [f"{number:03}" for number in range(50)]
    assert len(parts) == 3


async def test_limits_hold_in_every_partition(shared_dsn: str, schema: str, parts: list[str]) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        await fill(store)
        await store["orders"].set_limits(max_size=100, json_schema={"properties": {"n": {"type": "integer"}}})
        for key in FIVE:
            for data in {"n": "x"}, {"n": 1, "text": "x" * 100}:
                with pytest.raises(PgdocError):
                    await store["orders"].replace(key, data)
                with pytest.raises(PgdocError):
                    await store["orders"].update(key, {"$set": data})
        await store["orders"].set_limits(max_size=None, json_schema=None)
        await store["orders"].replace("o-1", {"n": "x" * 200})
    assert len(parts) == 3
