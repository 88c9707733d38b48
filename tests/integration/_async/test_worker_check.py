"""`worker.check()`: each finding is provoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import AsyncStore, AsyncWorker, StoreClosed
from tests.integration._async.workers import count, fresh_name, opened, recorder, running

if TYPE_CHECKING:
    import psycopg

    from pgdoc import WorkerFinding


async def found(worker: AsyncWorker) -> dict[str, str]:
    """Return the ids of the findings with their verdicts."""
    return {each.id: each.verdict for each in await worker.check()}


async def finding(worker: AsyncWorker, name: str) -> WorkerFinding:
    """Return the only finding of this id."""
    (only,) = [each for each in await worker.check() if each.id == name]
    return only


FINE = {"worker-handler": "ok", "worker-server": "ok", "worker-stream": "ok", "worker-rights": "ok"}


async def test_a_worker_that_can_run_and_what_happens_to_its_consumer(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, name="audit")(recorder())
        assert await found(worker) == {**FINE, "worker-consumer-missing": "warn"}
        assert await store.consumers() == []  # it has created nothing
        await worker.declare()
        assert await found(worker) == {**FINE, "worker-consumer": "ok"}
        async with running(worker):
            await store["orders"].insert("1", {})
            await count(store, "effects", 1)
            assert await found(worker) == {**FINE, "worker-consumer-open": "ok"}
        other = AsyncWorker(store)
        other.on("orders", consumer=name, name="renamed")(recorder())
        gone = await finding(other, "worker-handler-gone")
        assert (gone.verdict, gone.consumer, gone.handler) == ("warn", name, "audit")


async def test_it_shows_dead_letters(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, name="audit", retries=0)(recorder(bad={"bad"}))
        await worker.declare()
        await store["orders"].insert("bad", {})
        await store["orders"].insert("good", {})
        async with running(worker):
            await count(store, "effects", 1)
        letters = await finding(worker, "worker-dead-letters")
        assert (letters.verdict, letters.handler) == ("warn", "audit")
        assert letters.text == 'handler "audit" has dead letters: 1 dead'


async def test_names_that_do_not_exist(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store, AsyncStore(shared_dsn, schema=schema, auto_create=False) as strict:
        worker = AsyncWorker(store)
        worker.on("absent", consumer=fresh_name())(recorder())
        assert (await found(worker))["worker-collection-missing"] == "ok"
        worker = AsyncWorker(strict)
        worker.on("absent", f"{schema}.table", consumer=(name := fresh_name()))(recorder())
        verdicts = await found(worker)
        assert verdicts["worker-collection-missing"] == verdicts["worker-table-missing"] == "wrong"
        await store.create_consumer(name, "orders")
        assert (await found(worker))["worker-collection-gone"] == "warn"
        assert "absent" not in await store.collections()


async def test_a_collection_without_before_images(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with opened(shared_dsn, schema) as store:
        sql.execute("SET session_replication_role = replica")  # event triggers would refuse it
        sql.execute("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
        worker, on_all = AsyncWorker(store), AsyncWorker(store)
        worker.on("orders", consumer=fresh_name())(recorder())
        on_all.on(consumer=fresh_name())(recorder())
        refused = await finding(worker, "worker-identity")
        assert (refused.verdict, refused.fix) == ("wrong", (f'ALTER TABLE "{schema}"."orders" REPLICA IDENTITY FULL',))
        assert (await found(on_all))["worker-identity"] == "warn"
        sql.execute(refused.fix[0].encode())
        assert "worker-identity" not in await found(worker)


async def test_a_consumer_of_another_schema_or_inside_a_snapshot(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store, opened(shared_dsn, f"{schema}_2") as other:
        name, with_snapshot = fresh_name(), fresh_name()
        await other.create_consumer(name, "orders")
        await store.create_consumer(with_snapshot, "orders", snapshot=True)
        worker = AsyncWorker(store)
        worker.on("orders", consumer=name)(recorder())
        worker.on("orders", consumer=with_snapshot)(recorder())
        verdicts = await found(worker)
        assert verdicts["worker-consumer-schema"] == verdicts["worker-snapshot"] == "wrong"
        async with other.transaction() as tx:
            await tx.connection.execute(f'DROP SCHEMA "{schema}_2" CASCADE'.encode())


async def test_a_role_that_lacks_rights(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    role = f"checked_{schema}"
    sql.execute(f'CREATE ROLE "{role}" LOGIN'.encode())
    try:
        async with AsyncStore(f"{shared_dsn} user={role}", schema=schema) as store:
            worker = AsyncWorker(store)
            worker.on("orders", consumer=fresh_name())(recorder())
            verdicts = await found(worker)
            assert verdicts["worker-stream"] == verdicts["worker-rights"] == "wrong"
            assert "`pgdoc grant ROLE --as streamer`" in (await finding(worker, "worker-rights")).text
            for statement in (await finding(worker, "worker-rights")).fix:
                sql.execute(statement.encode())
            sql.execute(f'ALTER ROLE "{role}" REPLICATION'.encode())
            verdicts = await found(worker)
            assert (verdicts["worker-stream"], verdicts["worker-rights"]) == ("ok", "ok")
    finally:
        sql.execute(f'DROP OWNED BY "{role}"'.encode())
        sql.execute(f'DROP ROLE "{role}"'.encode())


async def test_a_worker_without_handlers_a_server_that_is_away_and_a_closed_store(shared_dsn: str) -> None:
    async with AsyncStore("host=127.0.0.1 port=1 connect_timeout=2") as store:
        assert await found(AsyncWorker(store)) == {"worker-no-handlers": "wrong", "worker-server": "wrong"}
    with pytest.raises(StoreClosed):
        await AsyncWorker(store).check()
    async with AsyncStore(shared_dsn) as store:
        assert (await found(AsyncWorker(store)))["worker-no-handlers"] == "wrong"
