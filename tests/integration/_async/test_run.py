"""`store.run`: which errors are repeated, and how often."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgdoc import AsyncStore, AsyncTransaction
from pgdoc.errors import CommitUnknown, DuplicateDocument, SerializationFailure, ServerUnreachable, TransactionLost

pytestmark = pytest.mark.usefixtures("no_delay")


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.runtime.retry.FIRST_CONFLICT_S", 0.0)


class Attempts:
    """A function of a transaction that raises an error of the server the first times."""

    def __init__(self, failures: int, sqlstate: str = "40001") -> None:
        self.count = 0
        self._failures = failures
        self._sqlstate = sqlstate

    async def __call__(self, tx: AsyncTransaction) -> int:
        self.count += 1
        await tx["orders"].insert(f"o-{self.count}", {})
        if self.count <= self._failures:
            await tx.connection.execute(f"DO $$BEGIN RAISE SQLSTATE '{self._sqlstate}'; END$$".encode())
        return self.count


async def test_it_commits_and_returns_the_result(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        assert await store.run(Attempts(0)) == 1
        assert await store["orders"].count() == 1


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_it_repeats_serialization_failures_and_deadlocks(own_schema: dict[str, Any], sqlstate: str) -> None:
    async with AsyncStore(**own_schema) as store:
        assert await store.run(Attempts(3, sqlstate)) == 4
        found = [document.id async for document in store["orders"].find()]
        assert found == ["o-4"]  # nothing of the first attempts


@pytest.mark.parametrize("retries", [0, 2])
async def test_it_raises_the_last_error(own_schema: dict[str, Any], retries: int) -> None:
    async with AsyncStore(**own_schema) as store:
        attempts = Attempts(retries + 1)
        with pytest.raises(psycopg.errors.SerializationFailure):
            await store.run(attempts, retries=retries)
        assert attempts.count == retries + 1
        assert await store["orders"].count() == 0


async def test_it_repeats_no_other_error(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        attempts = Attempts(0)
        with pytest.raises(DuplicateDocument):
            await store.run(attempts)
        assert attempts.count == 1
        with pytest.raises(ValueError, match="retries must be a whole number of at least 0, got -1"):
            await store.run(attempts, retries=-1)
        invalid: list[Any] = [1.5, "3", None]
        for retries in invalid:
            with pytest.raises(ValueError, match="retries must be a whole number of at least 0, got "):
                await store.run(attempts, retries=retries)
        nothing: Any = None
        with pytest.raises(TypeError, match="fn must be a"):
            await store.run(nothing)
        with pytest.raises(ValueError, match="isolation"):
            await store.run(attempts, isolation="none")


async def test_a_rollback_is_no_failure(own_schema: dict[str, Any]) -> None:
    count = 0

    async def give_up(tx: AsyncTransaction) -> None:
        nonlocal count
        count += 1
        await tx["orders"].insert("o-1", {})
        raise psycopg.Rollback

    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        await store.run(give_up)
        assert count == 1
        assert await store["orders"].count() == 0


async def test_it_repeats_what_fails_at_the_commit(own_schema: dict[str, Any]) -> None:
    """Two serializable transactions that read what the other one writes: the last to commit fails there."""
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert_many([("a", {"n": 1}), ("b", {"n": 1})])
        attempts = 0

        async def add(tx: AsyncTransaction) -> int:
            nonlocal attempts
            attempts += 1
            total: int = sum([document.data["n"] async for document in tx["orders"].find()])
            if attempts == 1:
                async with store.transaction(isolation="serializable") as other:
                    assert await other["orders"].count({"n": 1}) == 2
                    await other["orders"].update("b", {"$set": {"n": 5}})
            await tx["orders"].update("a", {"$set": {"n": total}})
            return total

        assert await store.run(add, isolation="serializable") == 6
        assert attempts == 2


async def test_it_runs_with_the_metadata(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        async with await store["orders"].watch() as stream:
            await store.run(Attempts(1), metadata={"user": "anna"})
            event = await stream.next(timeout=30)
            assert event is not None
            assert (event.document_id, event.metadata) == ("o-2", {"user": "anna"})


async def test_a_collection_that_was_created_again_is_found_by_the_next_attempt(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store, AsyncStore(**own_schema) as other:
        await store["orders"].insert("o-1", {})
        await other.drop_collection("orders")
        await other["orders"].insert("o-2", {})

        async def count(tx: AsyncTransaction) -> int:
            return await tx["orders"].count()

        with pytest.raises(SerializationFailure):
            await store.run(count, retries=0)
        await other.drop_collection("orders")
        await other["orders"].insert("o-3", {})
        assert await store.run(count) == 1


async def test_a_lost_commit_is_not_repeated(own_schema: dict[str, Any]) -> None:
    schema = own_schema["schema"]
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        async with store.transaction() as tx:
            await tx.connection.execute(
                f"""
                CREATE FUNCTION {schema}.die() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;
                CREATE CONSTRAINT TRIGGER die AFTER INSERT ON {schema}.orders DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION {schema}.die();
                """.encode()
            )
        attempts = Attempts(0)
        with pytest.raises(CommitUnknown, match="may or may not be stored") as raised:
            await store.run(attempts)
        assert attempts.count == 1
        assert isinstance(raised.value, ServerUnreachable)
        assert not raised.value.retryable


class LosesItsConnection:
    """A function of a transaction whose connection is lost the first time."""

    def __init__(self, *, catches: bool = False) -> None:
        self.count = 0
        self._catches = catches

    async def __call__(self, tx: AsyncTransaction) -> None:
        self.count += 1
        await tx["orders"].insert(f"o-{self.count}", {})
        if self.count > 1:
            return
        with pytest.raises(psycopg.errors.AdminShutdown):
            await tx.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        for _ in range(2):  # each call in it fails alike
            with pytest.raises(TransactionLost, match=r"Nothing of the transaction is stored.* run it again"):
                await tx["orders"].get("o-1")
        if not self._catches:
            await tx["orders"].count()


@pytest.mark.parametrize("catches", [False, True])
async def test_a_transaction_whose_connection_was_lost_is_repeated(
    own_schema: dict[str, Any], *, catches: bool
) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        body = LosesItsConnection(catches=catches)
        await store.run(body)
        assert body.count == 2
        assert [document.id async for document in store["orders"].find()] == ["o-2"]


async def test_every_call_of_a_lost_transaction_says_so(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        with pytest.raises(TransactionLost, match="its connection is closed: run it again") as raised:
            await lose_a_transaction(store)
        assert raised.value.retryable
        await kill_at_the_next_insert(store, own_schema["schema"], "orders")
        for ordered in (True, False):
            with pytest.raises(TransactionLost, match="Nothing of the transaction is stored"):
                await lose_a_bulk(store, ordered=ordered)
        assert await store["orders"].count() == 1


async def lose_a_transaction(store: AsyncStore) -> None:
    async with store.transaction() as tx:
        docs = tx["orders"]
        with pytest.raises(psycopg.errors.AdminShutdown):
            await tx.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(TransactionLost, match="run it again"):
            await docs.create_index("n")
        with pytest.raises(TransactionLost, match="run it again"):
            await docs.indexes()
        with pytest.raises(TransactionLost, match="run it again"):
            await docs.set_limits(max_size=None)
        with pytest.raises(TransactionLost, match="run it again"):
            await docs.set_limits(json_schema=None)
        with pytest.raises(TransactionLost, match="run it again"):
            async with tx.bulk() as bulk:
                await bulk["orders"].insert("o-2", {})
        with pytest.raises(TransactionLost, match="run it again"):
            await docs.insert_many([("o-2", {})])
        with pytest.raises(TransactionLost, match="run it again"):
            await docs.update_many({}, {"$set": {"a": 1}})


async def lose_a_bulk(store: AsyncStore, *, ordered: bool) -> None:
    async with store.bulk(ordered=ordered) as bulk:
        await bulk["orders"].insert("o-3", {"n": 1})
        await bulk["orders"].update_many({}, {"$set": {"a": 1}})


async def kill_at_the_next_insert(store: AsyncStore, schema: str, name: str) -> None:
    async with store.transaction() as tx:
        await tx.connection.execute(
            f"""
            CREATE FUNCTION {schema}.die() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;
            CREATE TRIGGER die AFTER INSERT ON {schema}.{name} FOR EACH ROW EXECUTE FUNCTION {schema}.die();
            """.encode()
        )
