"""Workers: effects and positions commit together, and a handler that fails gets its event again."""

from __future__ import annotations

import logging
import random
import string
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import AsyncStore, AsyncWorker, DatabaseError, SerializationFailure
from pgdoc._async import lane
from pgdoc.runtime.activities import AsyncFlag
from pgdoc.runtime.primitives import async_sleep
from tests.integration._async.workers import count, effects, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    from pgdoc import AsyncTransaction, ChangeEvent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)


def numbered(begin: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"o-{n:04}", {"n": n}) for n in range(begin, end)]


def names(begin: int, end: int) -> list[str]:
    return [f"o-{n:04}" for n in range(begin, end)]


async def test_each_event_has_one_effect_also_when_the_worker_runs_again(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker = AsyncWorker(store)
        worker.on("orders", consumer=fresh_name(), batch=7)(recorder())
        assert await worker.declare() == [next(iter(worker._registrations))]
        assert await worker.declare() == []
        await store["orders"].insert_many(numbered(0, 50))
        async with running(worker):
            await count(store, "effects", 50)
            await store["orders"].insert_many(numbered(50, 80))
            await count(store, "effects", 80)
        await store["orders"].insert_many(numbered(80, 100))
        async with running(worker):
            await count(store, "effects", 100)
        assert await effects(store) == names(0, 100)


async def test_handlers_that_share_a_consumer_have_their_own_positions_and_filters(
    shared_dsn: str, schema: str
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, name="all")(recorder("effects"))
        worker.on("orders", consumer=name, name="even", where={"full_document.data.n": {"$in": [0, 2, 4]}})(
            recorder("even")
        )
        worker.on("other", consumer=name, name="other")(recorder("others"))
        await worker.declare()
        await store["orders"].insert_many(numbered(0, 6))
        await store["other"].insert("x", {})
        for _ in range(2):
            async with running(worker):
                await count(store, "effects", 6)
                await count(store, "even", 3)
                await count(store, "others", 1)
        assert await effects(store) == names(0, 6)
        assert await effects(store, "even") == ["o-0000", "o-0002", "o-0004"]


async def test_a_poisonous_event_becomes_a_dead_letter_and_the_others_are_handled(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, retries=2)(recorder(bad={"o-0033"}))
        await worker.declare()
        await store["orders"].insert_many(numbered(0, 60))
        async with running(worker):
            await count(store, "effects", 59)
        assert await effects(store) == [each for each in names(0, 60) if each != "o-0033"]
        (letter,) = await store.dead_letters(consumer=name)
        assert (letter.document_id, letter.state, letter.attempts) == ("o-0033", "dead", 3)
        assert letter.error == "RuntimeError: no o-0033"
        assert letter.event is not None
        assert letter.event.full_document is not None
        assert letter.event.full_document.data == {"n": 33}
        ((status),) = worker.status()
        assert (status.handled, status.dead, status.state) == (59, 1, "closed")


@dataclass
class Numbered:
    n: int


async def test_a_handler_gets_models_and_what_is_not_valid_becomes_a_dead_letter(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, found = AsyncWorker(store), fresh_name(), list[Numbered]()

        @worker.on("orders", consumer=name, snapshot=True, retries=0, model=Numbered)
        async def handle(event: ChangeEvent[Numbered]) -> None:
            assert event.full_document is not None
            found.append(event.full_document.data)

        await store["orders"].insert("a", {"n": 1})
        await worker.declare()
        await store["orders"].insert_many([("b", {"n": "2"}), ("c", {"n": 3})])
        async with running(worker):

            async def has_failed() -> bool:
                return bool(await store.dead_letters(consumer=name, state="dead")) and len(found) == 2

            await until(has_failed)
            (letter,) = await store.dead_letters(consumer=name)
            assert letter.error is not None
            assert letter.error.startswith("pgdoc.InvalidModel: document 'b' of collection")
            await store["orders"].update("b", {"$set": {"n": 4}})

            async def all_are_handled() -> bool:
                return len(found) == 3

            await until(all_are_handled)
        assert found == [Numbered(1), Numbered(3), Numbered(4)]
        assert await store.drop_dead_letters(consumer=name) == 1


async def test_later_events_wait_behind_a_dead_letter_until_it_is_retried(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        bad = {"o-0001"}
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad=bad))
        await worker.declare()
        await store["orders"].insert_many(numbered(0, 3))
        for number in range(3):
            await store["orders"].update("o-0001", {"$set": {"n": number}})
        async with running(worker):
            await count(store, "effects", 2)

            async def all_are_stored() -> bool:
                return len(await store.dead_letters(consumer=name)) == 4

            await until(all_are_stored)
            states = [letter.state for letter in await store.dead_letters(consumer=name)]
            assert states == ["dead", "parked", "parked", "parked"]
            bad.clear()
            await store.retry_dead_letters(consumer=name)
            await count(store, "effects", 6)
            await store["orders"].update("o-0001", {"$set": {"n": 9}})
            await count(store, "effects", 7)
        assert await effects(store) == ["o-0000", "o-0002", *["o-0001"] * 5]
        assert await store.dead_letters(consumer=name) == []


async def test_a_dead_letter_that_fails_again_stays_with_one_more_attempt(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad={"o-0000"}))
        await worker.declare()
        await store["orders"].insert_many(numbered(0, 1))
        await store["orders"].update("o-0000", {"$set": {"n": 5}})

        async def attempts_are(number: int) -> bool:
            letters = await store.dead_letters(consumer=name)
            return [each.state for each in letters] == ["dead", "parked"] and letters[0].attempts == number

        async def is_dead() -> bool:
            return await attempts_are(1)

        async def has_failed_again() -> bool:
            return await attempts_are(2)

        async with running(worker):
            await until(is_dead)
            await store.retry_dead_letters(consumer=name)
            await until(has_failed_again)


async def test_a_conflict_is_repeated_and_counts_for_nothing(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        attempts: list[int] = []
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        async def conflict(tx: AsyncTransaction, event: ChangeEvent) -> None:
            attempts.append(1)
            if len(attempts) < 4:
                raise SerializationFailure("another transaction", sqlstate="40001")
            await tx["effects"].insert(str(event.document_id), {})

        await worker.declare()
        await store["orders"].insert("a", {})
        async with running(worker):
            await count(store, "effects", 1)
        assert await store.dead_letters(consumer=name) == []


async def test_a_handler_without_a_transaction_gets_what_it_failed_at_again(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        seen: list[str | None] = []
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name)
        async def call(event: ChangeEvent) -> None:
            seen.append(event.document_id)
            if seen.count(event.document_id) < 2:
                raise OSError("503")

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 3))

        async def has_all() -> bool:
            return len(seen) >= 6

        async with running(worker):
            await until(has_all)
        async with running(worker):
            await async_sleep(0.3)
        assert seen == ["o-0000", "o-0000", "o-0001", "o-0001", "o-0002", "o-0002"]


async def test_rolling_back_in_a_handler_passes_the_event_without_an_effect(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, batch=1)
        async def pick(tx: AsyncTransaction, event: ChangeEvent) -> None:
            await tx["effects"].insert(str(event.document_id), {})
            if event.document_id == "o-0001":
                raise psycopg.Rollback

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 3))
        async with running(worker):
            await count(store, "effects", 2)
        assert sorted([document.id async for document in store["effects"].find({})]) == ["o-0000", "o-0002"]


async def test_a_handler_that_hangs_is_reported_and_does_not_hold_up_the_others(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc.workers.backlog._EVENTS", 5)
        worker, name, goes_on = AsyncWorker(store, hang_after=0.2), fresh_name(), AsyncFlag()
        slow: list[str | None] = []

        @worker.on("orders", consumer=name, name="slow", batch=1)
        async def hang(event: ChangeEvent) -> None:
            await goes_on.wait()
            slow.append(event.document_id)

        worker.on("orders", consumer=name, name="quick", batch=3)(recorder())
        await worker.declare()
        with caplog.at_level(logging.WARNING, "pgdoc.worker"):
            async with running(worker):
                await store["orders"].insert_many(numbered(0, 40))
                await count(store, "effects", 40)
                assert slow == []
                goes_on.set()

                async def has_all() -> bool:
                    return len(slow) >= 40

                await until(has_all)
        assert slow == names(0, 40)
        assert await effects(store) == names(0, 40)
        assert "has been running for" in caplog.text
        assert "the others go on" in caplog.text


async def test_a_worker_that_stops_rolls_back_what_does_not_end(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, began = AsyncWorker(store, shutdown_timeout=0.3), fresh_name(), AsyncFlag()
        never = AsyncFlag()

        @worker.on("orders", consumer=name)
        async def hang(tx: AsyncTransaction, event: ChangeEvent) -> None:
            await tx["effects"].insert(str(event.document_id), {})
            began.set()
            await never.wait(20)

        await worker.declare()
        await store["orders"].insert("a", {})
        async with running(worker):
            assert await began.wait(20)
        assert "did not end in time: its batch is rolled back" in caplog.text
        never.set()
        assert await store["effects"].count() == 0
        again = AsyncWorker(store)
        again.on("orders", consumer=name)(recorder())
        async with running(again):
            await count(store, "effects", 1)


async def test_a_second_worker_stands_by(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        name = fresh_name()
        first, second = AsyncWorker(store), AsyncWorker(store)
        first.on("orders", consumer=name)(recorder("effects"))
        second.on("orders", consumer=name)(recorder("effects2"))
        await first.declare()
        async with running(first):
            await store["orders"].insert_many(numbered(0, 5))
            await count(store, "effects", 5)
            async with running(second):

                async def stands_by() -> bool:
                    return [each.state for each in second.status()] == ["standby"]

                await until(stands_by)
                first.stop()

                async def took_over() -> bool:
                    return [each.state for each in second.status()] == ["idle"]

                await until(took_over)
                await store["orders"].insert_many(numbered(5, 9))
                await count(store, "effects2", 4)


def test_a_function_that_is_no_handler_is_refused_with_the_reason() -> None:
    worker = AsyncWorker(AsyncStore("host=nowhere.invalid"))
    decorate = worker.on("orders", consumer="c")

    async def wrong(events: list[ChangeEvent], more: int) -> None: ...

    async def right(tx: AsyncTransaction, events: list[ChangeEvent]) -> None: ...

    with pytest.raises(TypeError, match=r"wrong\(events, more\) is not a handler: its parameters must be"):
        decorate(wrong)
    with pytest.raises(TypeError, match="a handler must be"):
        decorate(3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, got 0"):
        worker.on("orders", consumer="c", batch=0)(right)
    with pytest.raises(ValueError, match="retries must be a whole number of at least 0, got -1"):
        worker.on("orders", consumer="c", retries=-1)(right)
    with pytest.raises(ValueError, match="on_dead must be 'continue' or 'park', got 'stop'"):
        worker.on("orders", consumer="c", on_dead="stop")(right)
    decorate(right)
    with pytest.raises(ValueError, match='has a handler "right" already'):
        decorate(right)
    with pytest.raises(ValueError, match="can't be shared, because a handler has snapshot=True"):
        worker.on("orders", consumer="c", snapshot=True, name="other")(right)


async def test_a_worker_that_may_not_run_says_so_at_its_start(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name)(recorder())
        await worker.declare()
        async with store.transaction() as tx:
            await tx.connection.execute("ALTER TABLE pgdoc.handlers RENAME COLUMN place TO moved")
        try:
            with pytest.raises(DatabaseError, match="place"):
                await worker.run()
        finally:
            async with store.transaction() as tx:
                await tx.connection.execute("ALTER TABLE pgdoc.handlers RENAME COLUMN moved TO place")


async def test_a_position_that_a_failover_has_undone_is_not_passed_over(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, name="one")(recorder())
        worker.on("orders", consumer=name, name="two")(recorder("others"))
        await worker.declare()
        async with running(worker):
            await store["orders"].insert("a", {})
            await count(store, "effects", 1)
            async with store.transaction() as tx:  # as the server that was promoted has it
                await tx.connection.execute(
                    "UPDATE pgdoc.handlers SET place = '{1}' WHERE consumer = %s AND handler = 'one'", [name]
                )
            await store["orders"].insert("b", {})
            await count(store, "others", 2)
            await count(store, "effects", 2)
    assert f'consumer "{name}" of the worker is not open, and is tried again: ConsumerLost' in caplog.text


async def test_a_dead_letter_that_is_tried_again_has_the_numbers_of_its_store(shared_dsn: str, schema: str) -> None:
    seen: list[Any] = []
    async with (
        opened(shared_dsn, schema) as plain,
        AsyncStore(shared_dsn, schema=schema, decimals=True) as store,
    ):
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        async def see(event: ChangeEvent) -> None:
            assert event.full_document is not None
            seen.append(event.full_document.data["price"])
            if len(seen) < 2:
                raise RuntimeError

        async def is_dead() -> bool:
            return [each.state for each in await plain.dead_letters(consumer=name)] == ["dead"]

        async def is_done() -> bool:
            return await plain.dead_letters(consumer=name) == []

        await worker.declare()
        await store["orders"].insert("a", {"price": Decimal("1.10")})
        async with running(worker):
            await until(is_dead)
            await plain.retry_dead_letters(consumer=name)
            await until(is_done)
    assert [(type(each), str(each)) for each in seen] == [(Decimal, "1.10")] * 2


async def test_an_event_of_a_row_with_a_long_key_becomes_a_dead_letter(shared_dsn: str, schema: str) -> None:
    """Its key fits into the index of its table, and not into that of dead letters, which has more columns."""
    key = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=2600))
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        table = f"public.keys_of_{name}"
        worker.on(table, consumer=name, retries=0, on_dead="park", name="h" * 200)(recorder(bad={key}))
        async with store.transaction() as tx:
            await tx.connection.execute(f"CREATE TABLE {table} (k text PRIMARY KEY, n int)".encode())
        await store.add_table(table)
        await worker.declare()
        async with store.transaction() as tx:
            await tx.connection.execute(f"INSERT INTO {table} VALUES (%s, 1)".encode(), [key])
            await tx.connection.execute(f"UPDATE {table} SET n = 2".encode())

        async def are_stored() -> bool:
            return [each.state for each in await store.dead_letters(consumer=name)] == ["dead", "parked"]

        async with running(worker):
            await until(are_stored)
            letters = await store.dead_letters(consumer=name)
        assert [each.event.document_id for each in letters if each.event is not None] == [key] * 2
        await store.remove_table(table)
        async with store.transaction() as tx:
            await tx.connection.execute(f"DROP TABLE {table}".encode())
