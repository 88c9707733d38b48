"""No call touches a table that is not a registered collection, also if it takes a collection's name meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import AsyncStore, Store
from pgdoc.crud.guard import guarded
from pgdoc.crud.statements import (
    CHANGING,
    find_statement,
    lock_first_statement,
    part_statement,
    table_statement,
    write_statement,
)
from pgdoc.errors import BulkError, CollectionNotFound, DatabaseError, RegistryUnbound, SerializationFailure
from pgdoc.runtime.ttl_cache import FOR_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.crud.guard import GuardedQuery

SIX = (
    "id text PRIMARY KEY, data jsonb NOT NULL, version bigint NOT NULL DEFAULT 1, "
    "replaced_version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(), "
    "updated_at timestamptz NOT NULL DEFAULT now()"
)
ROWS = "SELECT generate_series(1, 3)::text, jsonb_build_object('n', 1)"
FORMS = {
    "identity": (
        "CREATE TABLE {t} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text)",
        "INSERT INTO {t} (email) SELECT generate_series(1, 3)::text",
    ),
    "uuid": (
        "CREATE TABLE {t} (id uuid PRIMARY KEY, email text)",
        "INSERT INTO {t} SELECT gen_random_uuid() FROM generate_series(1, 3)",
    ),
    "text": (
        "CREATE TABLE {t} (id text PRIMARY KEY, email text)",
        "INSERT INTO {t} SELECT generate_series(1, 3)::text",
    ),
    "hand-made": (f"CREATE TABLE {{t}} ({SIX})", f"INSERT INTO {{t}} (id, data) {ROWS}"),
    "wrong types": (
        f"CREATE TABLE {{t}} ({SIX.replace('id text', 'id int').replace('jsonb', 'text')})",
        "INSERT INTO {t} (id, data) SELECT generate_series(1, 3), ''",
    ),
    "view": (
        f"CREATE TABLE {{t}}_below ({SIX})",
        f"INSERT INTO {{t}}_below (id, data) {ROWS}",
        "CREATE VIEW {t} AS SELECT * FROM {t}_below",
    ),
    "materialized view": (
        f"CREATE TABLE {{t}}_below ({SIX})",
        f"INSERT INTO {{t}}_below (id, data) {ROWS}",
        "CREATE MATERIALIZED VIEW {t} AS SELECT * FROM {t}_below",
    ),
    "partitioned": (
        f"CREATE TABLE {{t}} ({SIX}) PARTITION BY LIST (id)",
        "CREATE TABLE {t}_every PARTITION OF {t} DEFAULT",
        f"INSERT INTO {{t}} (id, data) {ROWS}",
    ),
}

# `x` is a collection of a store or of a transaction.
CALLS: dict[str, Callable[[Any], Any]] = {
    "insert": lambda x: x.insert("7", {}),
    "insert_many": lambda x: x.insert_many([("7", {})]),
    "get": lambda x: x.get("1"),
    "find": lambda x: x.find(),
    "find by a filter": lambda x: x.find({"n": {"$gte": 1}}, sort="-n", limit=2),
    "find by id": lambda x: x.find({"_id": "1"}),
    "find nothing": lambda x: x.find({"n": {"$in": []}}),
    "find_one": lambda x: x.find_one({"n": 1}),
    "count": lambda x: x.count(),
    "distinct": lambda x: x.distinct("_id"),
    "explain": lambda x: x.explain(),
    "update": lambda x: x.update("1", {"$set": {"n": 2}}),
    "update at a version": lambda x: x.update("1", {"$set": {"n": 2}}, if_version=1),
    "upsert": lambda x: x.update("1", {"$set": {"n": 2}}, upsert=True),
    "update_many": lambda x: x.update_many({}, {"$set": {"n": 2}}),
    "update_one": lambda x: x.update_one({}, {"$set": {"n": 2}}),
    "update_one sorted": lambda x: x.update_one({}, {"$set": {"n": 2}}, sort="n"),
    "update_one or insert": lambda x: x.update_one({"_id": "1"}, {"$set": {"n": 2}}, upsert=True),
    "replace_one": lambda x: x.replace_one({}, {}),
    "replace_one or insert": lambda x: x.replace_one({"_id": "1"}, {}, upsert=True),
    "replace": lambda x: x.replace("1", {}),
    "replace or insert": lambda x: x.replace("1", {}, upsert=True),
    "delete": lambda x: x.delete("1"),
    "delete_many": lambda x: x.delete_many({}),
    "delete_one": lambda x: x.delete_one({"n": 1}, sort="n"),
    "create_index": lambda x: x.create_index("n"),
    "indexes": lambda x: x.indexes(),
    "drop_index": lambda x: x.drop_index("n"),
}
BULK_CALLS: dict[str, Callable[[Any], Any]] = {
    name: CALLS[name]
    for name in (
        "insert",
        "update",
        "upsert",
        "update_many",
        "update_one",
        "update_one sorted",
        "update_one or insert",
        "replace_one",
        "replace",
        "replace or insert",
        "delete",
        "delete_many",
        "delete_one",
    )
}
STORE_CALLS: dict[str, Callable[[Any, str], Any]] = {
    "create_collection": lambda x, name: x.create_collection(name),
    "drop_collection": lambda x, name: x.drop_collection(name),
    "rename_collection": lambda x, name: x.rename_collection(name, "elsewhere"),
}


async def finish(result: Any) -> Any:
    """Wait for the result of a call of either kind of store, and read it to its end."""
    if inspect.isawaitable(result):
        return await result
    if inspect.isasyncgen(result):
        return [item async for item in result]
    return list(result) if inspect.isgenerator(result) else result


async def raised_by(call: Callable[[], Any]) -> BaseException | None:
    """Return the error of a call; for a bulk, that of its write."""
    try:
        await finish(call())
    except BulkError as exc:
        return exc.__cause__
    except Exception as exc:  # noqa: BLE001 (the caller compares it)
        return exc
    return None


async def inside(block: Any, call: Callable[[Any], Any], name: str) -> None:
    if hasattr(block, "__aenter__"):
        async with block as opened:
            await finish(call(opened[name]))
    else:
        with block as opened:
            await finish(call(opened[name]))


async def attempt_all(store: Any, name: str) -> dict[str, BaseException | None]:
    """Make every call on a collection; return what each one raised."""
    raised = {what: await raised_by(lambda call=call: call(store[name])) for what, call in CALLS.items()}  # type: ignore[misc]
    for what, store_call in STORE_CALLS.items():
        raised[what] = await raised_by(lambda call=store_call: call(store, name))  # type: ignore[misc]
    for what, call in CALLS.items():
        raised[f"{what} in a transaction"] = await raised_by(
            lambda call=call: inside(store.transaction(), call, name)  # type: ignore[misc]
        )
    for what, call in BULK_CALLS.items():
        raised[f"{what} in a bulk"] = await raised_by(lambda call=call: inside(store.bulk(), call, name))  # type: ignore[misc]
    return raised


@pytest.fixture
def sql(own_schema: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to the database of `own_schema`, whose schema exists."""
    with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {own_schema['schema']}".encode())
        yield connection


def make(connection: psycopg.Connection[Any], table: str, form: str) -> None:
    for statement in FORMS[form]:
        connection.execute(statement.format(t=table).encode())


def state_of(connection: psycopg.Connection[Any], table: str) -> Any:
    """Return every row with the transactions that wrote and locked it, the indexes and the triggers."""
    below = f"{table}_below"  # of a view
    rows_of = below if connection.execute("SELECT to_regclass(%s)", [below]).fetchone() != (None,) else table
    rows = connection.execute(f"SELECT ctid::text, xmin, xmax, t.* FROM {rows_of} t ORDER BY 1".encode()).fetchall()
    shape = "SELECT oid, relreplident, reltoastrelid, (SELECT count(*) FROM pg_index WHERE indrelid = c.oid), "
    shape += "(SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid) FROM pg_class c WHERE c.oid = to_regclass(%s)"
    return rows, connection.execute(shape, [table]).fetchone()


def attempt(own_schema: dict[str, Any], name: str, *, is_async: bool, **options: Any) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        if is_async:
            async with AsyncStore(**own_schema, **options) as async_store:
                return await attempt_all(async_store, name)
        with Store(**own_schema, **options) as store:
            return await attempt_all(store, name)

    return asyncio.run(run())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schema", ["public", None])
@pytest.mark.parametrize("kind", ["sync", "sync without auto_create", "async"])
def test_every_call_on_a_foreign_table_is_refused(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any], form: str, schema: str | None, kind: str
) -> None:
    own = {**own_schema, "schema": schema or own_schema["schema"]}
    name = f"users_{form}_{kind}".replace(" ", "_").replace("-", "_")
    table = f"{own['schema']}.{name}"
    make(sql, table, form)
    before = state_of(sql, table)
    raised = attempt(own, name, is_async=kind == "async", auto_create="without" not in kind)
    assert {what: error for what, error in raised.items() if not isinstance(error, CollectionNotFound)} == {}
    assert state_of(sql, table) == before
    assert f"SELECT pgdoc.register('{table}')" in str(raised["get"])
    assert f"table {table} is not a collection" in str(raised["get"])


def warm(collection: Any) -> None:
    """Make calls until psycopg has prepared their statements."""
    collection.insert_many([(str(n), {"n": n}) for n in range(20)])
    for _ in range(6):
        for name in ("get", "find", "count", "update", "update_one", "replace", "replace or insert"):
            result = CALLS[name](collection)
            _ = list(result) if inspect.isgenerator(result) else result


def swap(connection: psycopg.Connection[Any], table: str, form: str) -> None:
    connection.execute(f"DROP TABLE {table}".encode())
    make(connection, table, form)


@pytest.mark.parametrize("form", FORMS)
def test_a_foreign_table_that_took_the_name_of_a_collection_is_refused(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any], form: str
) -> None:
    """Each call knows the collection that was dropped, and most have prepared their statements for it."""
    table = f"{own_schema['schema']}.orders"
    with Store(**own_schema, pool_size=1) as store:
        warm(store["orders"])
        quoted = store["orders"]._table.name
        dropped = store._connections.oids.get(quoted)
        assert dropped is not None
        swap(sql, table, form)
        before = state_of(sql, table)
        raised: dict[str, BaseException | None] = {}
        for what, call in CALLS.items():
            store._connections.oids.put(quoted, dropped)
            raised[what] = asyncio.run(raised_by(lambda call=call: call(store["orders"])))  # type: ignore[misc]
            store._connections.oids.put(quoted, dropped)
            raised[f"{what} in a transaction"] = asyncio.run(
                raised_by(lambda call=call: inside(store.transaction(), call, "orders"))  # type: ignore[misc]
            )
        for what, call in BULK_CALLS.items():
            store._connections.oids.put(quoted, dropped)
            raised[f"{what} in a bulk"] = asyncio.run(
                raised_by(lambda call=call: inside(store.bulk(), call, "orders"))  # type: ignore[misc]
            )
        assert {what: error for what, error in raised.items() if not isinstance(error, CollectionNotFound)} == {}
        assert state_of(sql, table) == before
        assert store._connections.oids.get(quoted) is None
        with pytest.raises(CollectionNotFound, match=r"SELECT pgdoc\.register"):
            store["orders"].get("1")


@pytest.mark.parametrize("form", ["text", "hand-made"])
@pytest.mark.parametrize("name", CALLS)
def test_a_foreign_table_that_took_the_name_inside_a_transaction_is_refused(
    own_schema: dict[str, Any], form: str, name: str
) -> None:
    table = f"{own_schema['schema']}.orders"

    def swap_and_call(store: Store) -> None:
        with store.transaction() as tx:
            warm(tx["orders"])
            swap(tx.connection, table, form)
            before = state_of(tx.connection, table)
            try:
                result = CALLS[name](tx["orders"])
                _ = list(result) if inspect.isgenerator(result) else result
            except CollectionNotFound:
                if tx.connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                    assert state_of(tx.connection, table) == before
                raise

    with Store(**own_schema) as store:
        store["orders"].insert("kept", {})
        with pytest.raises(CollectionNotFound):
            swap_and_call(store)
        assert store["orders"].get("kept") is not None
        assert store["orders"].count() == 1


def test_a_collection_that_was_dropped_and_created_again_goes_on_working(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema, pool_size=1) as store, Store(**own_schema) as other:
        warm(store["orders"])
        for name, call in CALLS.items():
            other.drop_collection("orders")
            other["orders"].insert("1", {"n": 1})
            assert asyncio.run(raised_by(lambda call=call: call(store["orders"]))) is None, name  # type: ignore[misc]


def test_a_collection_that_was_dropped_and_created_again_fails_one_transaction_at_most(
    own_schema: dict[str, Any],
) -> None:
    with Store(**own_schema) as store, Store(**own_schema) as other:
        warm(store["orders"])
        other.drop_collection("orders")
        other["orders"].insert("1", {"n": 1})
        with (
            pytest.raises(SerializationFailure, match="run the transaction again") as raised,
            store.transaction() as tx,
        ):
            tx["orders"].count()
        assert raised.value.retryable
        with store.transaction() as tx:
            assert tx["orders"].count() == 1


@pytest.mark.parametrize("is_in_transaction", [False, True])
def test_two_collections_that_exchange_their_names_are_not_mixed_up(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any], is_in_transaction: bool
) -> None:
    schema = own_schema["schema"]
    with Store(**own_schema) as store:
        store["a"].insert("1", {"is": "a"})
        store["b"].insert("1", {"is": "b"})
        with sql.transaction():
            sql.execute(f"ALTER TABLE {schema}.a RENAME TO c; ALTER TABLE {schema}.b RENAME TO a".encode())
            sql.execute(f"ALTER TABLE {schema}.c RENAME TO b".encode())
        if is_in_transaction:
            with pytest.raises(SerializationFailure, match="run the transaction again"), store.transaction() as tx:
                tx["a"].get("1")
        document = store["a"].get("1")
        assert document is not None
        assert document.data == {"is": "b"}


def test_a_copy_that_finds_a_foreign_table_reads_no_documents(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any]
) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("1", {})
        swap(sql, f"{own_schema['schema']}.orders", "hand-made")
        pairs: Iterator[tuple[str, dict[str, Any]]] = iter([("8", {}), ("9", {})])
        with pytest.raises(CollectionNotFound):
            store["orders"].insert_many(pairs)
        assert next(pairs) == ("8", {})
        with store.transaction() as tx:  # the error does not abort it
            with pytest.raises(CollectionNotFound):
                tx["orders"].insert_many(pairs)
            tx["others"].insert("1", {})
        assert store["others"].count() == 1


def test_a_copy_holds_the_table_until_it_ends(own_schema: dict[str, Any], sql: psycopg.Connection[Any]) -> None:
    def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
        sql.execute("SET lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            swap(sql, f"{own_schema['schema']}.orders", "hand-made")
        yield "2", {}

    with Store(**own_schema) as store:
        store["orders"].insert("1", {})
        store["orders"].insert_many(pairs())
        assert store["orders"].count() == 2


def test_an_index_build_that_meets_a_foreign_table_leaves_no_index(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{own_schema['schema']}.orders"
    with Store(**own_schema) as store:
        store["orders"].insert("1", {"n": 1})
        collection = store["orders"]
        build = type(collection)._execute

        def swap_and_build(*args: Any) -> None:
            monkeypatch.undo()
            swap(sql, table, "hand-made")
            build(*args)

        monkeypatch.setattr(type(collection), "_execute", swap_and_build)
        with pytest.raises(CollectionNotFound):
            collection.create_index("n")
        indexes = sql.execute("SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", [table]).fetchone()
        assert indexes == (1,)


def test_a_table_is_a_collection_from_its_registration_on(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any]
) -> None:
    table = f"{own_schema['schema']}.users"
    make(sql, table, "hand-made")
    with Store(**own_schema) as store:
        with store.transaction() as tx:
            with pytest.raises(CollectionNotFound):
                tx["users"].count()
            tx.connection.execute("SELECT pgdoc.register(%s)", [table])
            assert tx["users"].count() == 3
        assert store["users"].count() == 3
        sql.execute("SELECT pgdoc.unregister(%s)", [table])
    with Store(**own_schema) as store, pytest.raises(CollectionNotFound):
        store["users"].count()


def test_a_store_notices_within_seconds_that_a_collection_is_a_plain_table_again(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("1", {})
        sql.execute("SELECT pgdoc.unregister(%s)", [f"{own_schema['schema']}.orders"])
        monkeypatch.setattr("pgdoc.runtime.ttl_cache.time.monotonic", lambda now=time.monotonic: now() + FOR_S)
        with pytest.raises(CollectionNotFound):
            store["orders"].get("1")


def test_a_copied_database_is_refused_until_it_is_bound_again(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pgdoc.create_collection('docs', 'orders')")
        connection.execute("UPDATE pgdoc.identity SET database_oid = 1")
        with Store(dsn) as store:
            for call in (CALLS["get"], CALLS["insert"], CALLS["find"], CALLS["delete_many"], CALLS["create_index"]):
                assert isinstance(asyncio.run(raised_by(lambda call=call: call(store["orders"]))), RegistryUnbound)  # type: ignore[misc]
            with store.transaction() as tx, pytest.raises(RegistryUnbound):
                tx["orders"].get("1")
            with pytest.raises(RegistryUnbound, match="rebind"):
                store.create_collection("others")
            connection.execute("SELECT pgdoc.rebind()")
            store["orders"].insert("1", {})


def test_a_collection_that_is_newer_than_the_snapshot_is_not_called_foreign(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, Store(**own_schema) as other:
        store["orders"].insert("1", {})
        with store.transaction(isolation="repeatable read") as tx:
            tx["orders"].count()
            other["others"].insert("1", {})
            with pytest.raises(DatabaseError, match="newer than this transaction's snapshot") as raised:
                tx["others"].count()
            assert raised.value.sqlstate == "40001"
            assert tx["orders"].count() == 1


def statements(table: str) -> dict[str, GuardedQuery]:
    change, condition = "data || '{}'", "data ? 'n'"
    first = lock_first_statement(table, [condition, "data ? 'm'"], order="id", lock=CHANGING, in_turn=False)
    made: dict[str, GuardedQuery] = {}
    for name in ("insert", "update", "upsert", "bulk_upsert", "replace", "replace_upsert", "delete"):
        for metadata in (False, True):
            key = f"{name} with metadata" if metadata else name
            made[key] = write_statement(name, table, with_metadata=metadata, first="'{}'::jsonb", change=change)
    for name in ("update_many", "delete_many"):
        made[name] = write_statement(name, table, with_metadata=True, condition=condition, change=change)
    for name in ("update_one", "replace_one", "delete_one"):
        made[name] = write_statement(name, table, with_metadata=True, first=first, change=change)
    for name in ("update_one", "replace_one"):
        for result in ("after", "before", "counts"):
            made[f"{name} {result} or insert"] = write_statement(
                name, table, with_metadata=True, first=first, change=change, result=result, seed="'{}'", conflict=""
            )
    made["insert_first"] = write_statement("insert_first", table, with_metadata=True, first="'{}'::jsonb")
    for name in ("get", "version", "lock", "hold", "check_update"):
        made[name] = table_statement(name, table, change=change)
    for name in ("find", "count"):
        for conditions in ((condition,), (condition, "data ? 'm'"), ("FALSE",), ("FALSE", "FALSE")):
            order = "id" if len(conditions) > 1 else ""
            made[f"{name} {conditions}"] = find_statement(name, table, conditions, order=order, limit=2, fields="data")
    made["distinct"] = find_statement("distinct", table, (condition,), values="(VALUES (to_jsonb(id)))")
    made["part"] = part_statement(table)
    return made


def numbered(query: bytes) -> str:
    head, *parts = query.decode().split("%s")
    return head + "".join(f"${number}{part}" for number, part in enumerate(parts, 1))


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_the_guard_costs_nothing_when_a_statement_is_executed(
    own_schema: dict[str, Any], sql: psycopg.Connection[Any], mode: str
) -> None:
    """It is not part of any plan, and a wrong oid is refused before the plan is made, also of a query without rows."""
    with Store(**own_schema) as store:
        store.create_collection("orders")
    table = f'"{own_schema["schema"]}"."orders"'
    ((oid,),) = sql.execute("SELECT %s::regclass::oid::bigint", [table])
    sql.execute(f"SET plan_cache_mode = {mode}".encode())
    for name, query in statements(table).items():
        text = guarded(query, oid)
        count = text.count(b"%s")
        sql.execute(f"PREPARE guarded AS {numbered(text)}".encode())
        nulls = f"({', '.join(['NULL'] * count)})" if count else ""
        plan = str(sql.execute(f"EXPLAIN (VERBOSE) EXECUTE guarded {nulls}".encode()).fetchall())
        sql.execute("DEALLOCATE guarded")
        assert "refuse_table" not in plan, name
        assert "regclass" not in plan, name
        with pytest.raises(psycopg.errors.DatabaseError) as raised:
            sql.execute(guarded(query, oid + 1).replace(b"%s", b"NULL"))
        assert raised.value.sqlstate == "PGD04", name  # another collection: the oid is wrong, not the table


def test_only_the_first_call_on_a_collection_looks_it_up(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(**own_schema) as store:
        asked: list[bytes] = []
        fetch = store._connections.fetch

        def count(query: bytes, *args: Any, **options: Any) -> Any:
            asked.append(query)
            return fetch(query, *args, **options)

        monkeypatch.setattr(store._connections, "fetch", count)
        monkeypatch.setattr(store._connections, "look_up", count)
        store.create_collection("orders")
        asked.clear()
        for _ in range(3):
            store["orders"].count({"n": 1})  # the look-up of its indexes finds the table, too
        for _ in range(3):
            store["orders"].get("1")
        assert len(asked) == 1 + 3 + 3
