"""Workers keep their promises whatever a handler does."""

from __future__ import annotations

import contextlib
import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import AsyncWorker, CommitUnknown, StoreClosed
from pgdoc._async import lane
from pgdoc.runtime.activities import AsyncActivity, AsyncFlag
from pgdoc.runtime.primitives import async_sleep
from tests.integration._async.streams import PATIENCE_S
from tests.integration._async.workers import count, effects, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    from pgdoc import AsyncStore, AsyncTransaction, ChangeEvent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)


def numbered(begin: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"o-{n:04}", {"n": n}) for n in range(begin, end)]


def names(begin: int, end: int) -> list[str]:
    return [f"o-{n:04}" for n in range(begin, end)]


async def letters(store: AsyncStore, consumer: str) -> list[tuple[Any, ...]]:
    """Return document id, state and error of each dead letter of a consumer."""
    query = b"SELECT document_id, state, error FROM pgdoc.dead_letters WHERE consumer = %s ORDER BY id"
    return await store._connections.fetch(query, [consumer])


async def has_letters(store: AsyncStore, consumer: str, number: int) -> bool:
    return len(await letters(store, consumer)) == number


async def execute(store: AsyncStore, query: bytes, *params: object) -> None:
    async with store.transaction() as tx:
        await tx.connection.execute(query, params)


async def test_a_handler_may_change_the_list_that_it_gets(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, attempts = AsyncWorker(store), fresh_name(), itertools.count()

        @worker.on("orders", consumer=name, retries=1)
        async def take(tx: AsyncTransaction, events: list[ChangeEvent]) -> None:
            is_first = not next(attempts)
            while events:
                await tx["effects"].insert(str(events.pop().document_id), {})
            if is_first:
                raise RuntimeError("again")

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 5))
        async with running(worker):
            await count(store, "effects", 5)
            await store["orders"].insert_many(numbered(5, 9))
            await count(store, "effects", 9)
        assert await letters(store, name) == []


async def test_rolling_back_at_one_event_keeps_the_effects_of_the_others(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        async def pick(tx: AsyncTransaction, event: ChangeEvent) -> None:
            await tx["effects"].insert(str(event.document_id), {})
            if event.document_id in {"o-0003", "o-0007"}:
                raise psycopg.Rollback

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 10))
        async with running(worker):
            await count(store, "effects", 8)
            await store["orders"].insert_many(numbered(10, 11))
            await count(store, "effects", 9)
        found = sorted([document.id async for document in store["effects"].find({})])
        assert found == [each for each in names(0, 11) if each not in {"o-0003", "o-0007"}]
        assert await letters(store, name) == []


async def test_a_handler_that_fails_for_ever_does_not_hold_up_the_others(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc.workers.backlog._EVENTS", 5)
        bad = {"o-0000"}
        worker, name = AsyncWorker(store, hang_after=0.2), fresh_name()
        worker.on("orders", consumer=name, name="bad", batch=1, retries=None)(recorder("late", bad))
        worker.on("orders", consumer=name, name="good", batch=3)(recorder())
        await worker.declare()
        async with running(worker):
            await store["orders"].insert_many(numbered(0, 40))
            await count(store, "effects", 40)
            assert await store["late"].count() == 0
            bad.clear()
            await count(store, "late", 40)
        assert await effects(store, "late") == names(0, 40)
        assert await effects(store) == names(0, 40)


class UnprintableError(Exception):
    """Its text can't be printed."""

    def __str__(self) -> str:
        raise ValueError("no text")


async def test_an_error_without_a_text_becomes_a_dead_letter(
    shared_dsn: str, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=1)
        async def fail(event: ChangeEvent) -> None:
            if event.full_document is not None:
                event.full_document.data["odd"] = object()  # can't be printed either
            raise UnprintableError

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 2))
        async with running(worker):
            await until(partial(has_letters, store, name, 2))
        for _, state, error in await letters(store, name):
            assert state == "dead"
            assert error.endswith("UnprintableError: (its text can't be printed)")
        assert "Logging error" not in capsys.readouterr().err


async def test_an_unknown_commit_of_the_handler_counts_against_its_event(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=1)
        async def fail(event: ChangeEvent) -> None:
            raise CommitUnknown(f"of another store, at {event.document_id}")

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 2))
        async with running(worker):
            await until(partial(has_letters, store, name, 2))


async def test_a_transaction_that_the_handler_makes_read_only_is_no_outage(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=1)
        async def fail(tx: AsyncTransaction, event: ChangeEvent) -> None:
            if event.document_id == "o-0000":
                await tx.connection.execute("SET TRANSACTION READ ONLY")

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 2))
        async with running(worker):
            await until(partial(has_letters, store, name, 1))
        ((document_id, _, error),) = await letters(store, name)
        assert document_id == "o-0000"
        assert "read-only transaction" in error


async def test_a_handler_that_returns_work_which_nobody_does_fails(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        async def fail(event: ChangeEvent) -> Any:
            return event.document_id and (n for n in range(3))

        await worker.declare()
        await store["orders"].insert_many(numbered(0, 1))
        async with running(worker):
            await until(partial(has_letters, store, name, 1))
        ((_, _, error),) = await letters(store, name)
        assert "TypeError: the handler returned generator" in error


async def test_what_waits_behind_a_letter_that_somebody_deleted_is_handled(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._async.worker_consumer.LETTERS_S", 0.1)
        monkeypatch.setattr("pgdoc._async.worker_consumer.PARKED_S", 0.1)
        worker, name = AsyncWorker(store), fresh_name()
        bad = {"o-0001"}
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad=bad))
        await worker.declare()
        await store["orders"].insert_many(numbered(0, 3))
        for number in range(3):
            await store["orders"].update("o-0001", {"$set": {"n": number}})
        async with running(worker):
            await until(partial(has_letters, store, name, 4))
            bad.clear()
            await execute(store, b"DELETE FROM pgdoc.dead_letters WHERE consumer = %s AND state = 'dead'", name)
            await until(partial(has_letters, store, name, 0))
            await count(store, "effects", 5)


async def test_a_letter_that_becomes_due_while_later_ones_are_tried_again_keeps_its_order(
    shared_dsn: str, schema: str
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, bad, tried = AsyncWorker(store), fresh_name(), {"x", "y"}, []

        @worker.on("orders", consumer=name, retries=0, on_dead="park")
        async def take(tx: AsyncTransaction, event: ChangeEvent) -> None:
            if event.document_id in bad:
                raise RuntimeError("bad")
            if event.document_id == "y":  # somebody retries the first letters meanwhile
                await store.retry_dead_letters(consumer=name, document_id="x")
            tried.append(f"{event.document_id} {event.full_document['n'] if event.full_document else 0}")
            await tx["effects"].insert(str(event.resume_token), {})

        await worker.declare()
        for n, document_id in enumerate(("x", "y", "x", "x")):
            await store["orders"].replace(document_id, {"n": n}, upsert=True)
        async with running(worker):
            await until(partial(has_letters, store, name, 4))
            bad.clear()
            await store.retry_dead_letters(consumer=name, document_id="y")
            await until(partial(has_letters, store, name, 0))
        assert tried == ["y 1", "x 0", "x 2", "x 3"]


async def test_a_batch_that_is_called_off_becomes_no_dead_letter(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, began = AsyncWorker(store, shutdown_timeout=0.3), fresh_name(), AsyncFlag()
        monkeypatch.setattr("pgdoc._async.lane_server.MOST_LOSSES", 0)
        goes_on, ended = AsyncFlag(), AsyncFlag()

        @worker.on("orders", consumer=name, retries=0)
        async def hang(tx: AsyncTransaction, event: ChangeEvent) -> None:
            began.set()
            try:
                await goes_on.wait(20)
            finally:
                ended.set()
            await tx["effects"].insert(str(event.document_id), {})

        await worker.declare()
        await store["orders"].insert("a", {})
        async with running(worker):
            assert await began.wait(20)
        goes_on.set()
        assert await ended.wait(20)
        await async_sleep(0.3)
        assert await letters(store, name) == []
        again = AsyncWorker(store)
        again.on("orders", consumer=name, name="hang")(recorder())
        async with running(again):
            await count(store, "effects", 1)


async def test_a_handler_that_was_called_off_is_not_called_again(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, began = AsyncWorker(store, shutdown_timeout=0.3), fresh_name(), AsyncFlag()
        goes_on, calls = AsyncFlag(), itertools.count()

        @worker.on("orders", consumer=name)
        async def hang(tx: AsyncTransaction, event: ChangeEvent) -> None:
            next(calls)
            began.set()
            await goes_on.wait(20)
            await tx["effects"].insert(str(event.document_id), {})  # its connection is gone

        await worker.declare()
        await store["orders"].insert("a", {})
        async with running(worker):
            assert await began.wait(20)
        goes_on.set()
        await async_sleep(0.5)
        assert next(calls) == 1


async def test_a_handler_may_stop_its_worker_twice(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, ends = AsyncWorker(store, shutdown_timeout=600), fresh_name(), AsyncFlag()

        @worker.on("orders", consumer=name)
        async def stop(event: ChangeEvent) -> None:
            worker.stop()
            worker.stop()
            assert event.document_id
            await ends.wait(60)

        await worker.declare()
        await store["orders"].insert("a", {})
        activity = AsyncActivity("test-worker", worker.run)
        assert await activity.wait(PATIENCE_S), "the second call waits, too"
        ends.set()
        assert activity.error is None


async def test_a_store_that_is_closed_ends_its_workers(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as keeper:
        from pgdoc import AsyncStore  # noqa: PLC0415 (the name is for types above)

        async with AsyncStore(shared_dsn, schema=schema) as store:
            worker, name = AsyncWorker(store), fresh_name()
            worker.on("orders", consumer=name)(recorder())
            await worker.declare()
            await keeper["orders"].insert_many(numbered(0, 3))
            activity = AsyncActivity("test-worker", worker.run)
            await count(keeper, "effects", 3)
        assert await activity.wait(PATIENCE_S), "the worker does not end"
        assert isinstance(activity.error, StoreClosed)


async def test_a_consumer_that_can_not_be_opened_ends_the_worker(shared_dsn: str, schema: str) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name)(recorder())
        await worker.declare()
        await execute(store, b"UPDATE pgdoc.consumers SET system_id = 1 WHERE name = %s", name)
        activity = AsyncActivity("test-worker", worker.run)
        assert await activity.wait(PATIENCE_S), "the worker does not end"
        assert activity.error is not None


async def test_a_handler_whose_lane_was_called_off_is_not_called_beside_itself(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(shared_dsn, schema) as store:
        worker, name, goes_on = AsyncWorker(store, hang_after=0.1), fresh_name(), AsyncFlag()
        inside, most = [0], [0]

        @worker.on("orders", consumer=name)
        async def hang(events: list[ChangeEvent]) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            while not goes_on.is_set():
                with contextlib.suppress(BaseException):  # it can't be cancelled
                    await goes_on.wait(20)
            inside[0] -= 1
            await store["effects"].insert_many([(str(event.resume_token), {}) for event in events])

        await worker.declare()
        await store["orders"].insert("a", {})
        with caplog.at_level(logging.INFO, "pgdoc.worker"):
            async with running(worker):

                async def is_inside() -> bool:
                    return inside[0] > 0

                async def is_open_again() -> bool:
                    return caplog.text.count("is open, and runs") > times

                await until(is_inside)
                try:
                    for times in (1, 2):  # noqa: B007 (`is_open_again` reads it)
                        await execute(
                            store, b"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"
                        )
                        await execute(
                            store,
                            b"UPDATE pgdoc.owners SET epoch = epoch + 1, holder = gen_random_uuid() WHERE name = %s",
                            name,
                        )
                        await until(is_open_again)
                    await async_sleep(0.5)
                finally:
                    goes_on.set()

                async def is_done() -> bool:
                    return inside[0] == 0

                await until(is_done)
        assert most[0] == 1
        assert caplog.text.count("did not end in time") == 1


async def test_a_handler_that_hangs_in_its_turn_holds_up_the_others_once(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "CAUTIOUS_AFTER", 0)
    monkeypatch.setattr(lane, "_TURN_S", 0.5)
    async with opened(shared_dsn, schema) as store:
        worker, name, began, goes_on = AsyncWorker(store), fresh_name(), AsyncFlag(), AsyncFlag()
        refused, take_turn = [], lane.AsyncLane._take_turn

        async def noting(of: lane.AsyncLane) -> bool:
            has_turn = await take_turn(of)
            refused.extend([] if has_turn else [of.registration.name])
            return has_turn

        monkeypatch.setattr(lane.AsyncLane, "_take_turn", noting)

        @worker.on("orders", consumer=name, where={"document_id": "hangs"})
        async def hang(events: list[ChangeEvent]) -> None:
            began.set()
            await goes_on.wait(30 * len(events))

        worker.on("orders", consumer=name, name="good", where={"document_id": {"$ne": "hangs"}})(recorder())
        await worker.declare()
        async with running(worker):
            try:
                await store["orders"].insert("hangs", {})
                assert await began.wait(20)
                await store["orders"].insert_many(numbered(0, 5))
                await count(store, "effects", 5)
            finally:
                goes_on.set()
        assert refused == ["good"]


async def test_an_event_that_can_not_be_read_becomes_a_dead_letter_whose_retry_says_so(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._async.worker_consumer.LETTERS_S", 0.1)
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        async def read(tx: AsyncTransaction, event: ChangeEvent) -> None:
            assert event.full_document is not None
            await tx["effects"].insert(str(event.document_id), event.full_document.data)

        await worker.declare()
        huge = f"INSERT INTO {schema}.orders (id, data) VALUES ('a', '{{\"n\": 1{'0' * 5000}}}')"
        await execute(store, huge.encode())
        await store["orders"].insert("b", {})
        async with running(worker):
            await count(store, "effects", 1)
            await until(partial(has_letters, store, name, 1))
            await store.retry_dead_letters(consumer=name)

            async def is_dead() -> bool:
                return [state for _, state, _ in await letters(store, name)] == ["dead"]

            await until(is_dead)
            await store["orders"].insert("c", {})
            await count(store, "effects", 2)
        ((document_id, _, error),) = await letters(store, name)
        assert document_id == "a"
        assert "Unreadable" in error or "no event" in error
