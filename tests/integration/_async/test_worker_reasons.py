"""What becomes of letters that fail again, and what a worker says about it."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

from pgdoc import AsyncStore, AsyncWorker, ServerUnreachable
from pgdoc._async.lane_rows import NOT_STORED
from tests.integration._async.workers import count, effects, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    import pytest


async def test_a_letter_whose_event_could_not_be_stored_keeps_its_first_error(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._async.worker_consumer.LETTERS_S", 0.05)
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name, retries=0)(recorder(bad={"a"}))
        await worker.declare()
        await store["orders"].insert("a", {})

        async def is_dead() -> bool:
            return [each.state for each in await store.dead_letters(consumer=name)] == ["dead"]

        async with running(worker):
            await until(is_dead)
            (first,) = await store.dead_letters(consumer=name)
            async with store.transaction() as tx:
                await tx.connection.execute("UPDATE pgdoc.dead_letters SET event = NULL WHERE id = %s", [first.id])
            for _ in range(2):
                await store.retry_dead_letters(consumer=name)
                await until(is_dead)
        (letter,) = await store.dead_letters(consumer=name)
        assert letter.error == f"RuntimeError: no a\npgdoc.InvalidEvent: {NOT_STORED}"
        assert (letter.traceback, letter.attempts, letter.tried_at) == (first.traceback, 1, first.tried_at)


async def test_an_outage_is_a_warning_once(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch, attempts = AsyncStore.watch, itertools.count()

    def failing(store: AsyncStore, *names: str, **options: Any) -> Any:
        if next(attempts) < 4:
            raise ServerUnreachable("away")
        return watch(store, *names, **options)

    monkeypatch.setattr(AsyncStore, "watch", failing)
    monkeypatch.setattr("pgdoc._async.worker_consumer.FIRST_DELAY_S", 0.01)
    caplog.set_level(logging.INFO, "pgdoc.worker")
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()
        worker.on("orders", consumer=name)(recorder())
        await worker.declare()
        await store["orders"].insert("a", {})
        async with running(worker):
            await count(store, "effects", 1)
        assert await effects(store) == ["a"]
    said = [each.levelno for each in caplog.records if "ServerUnreachable: away" in each.getMessage()]
    assert said == [logging.WARNING, *[logging.INFO] * 3]


async def test_what_waits_behind_an_event_of_the_collection_waits_as_long_as_that(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._async.worker_consumer.LETTERS_S", 0.05)
        worker, name, bad = AsyncWorker(store), fresh_name(), {"a"}
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad=bad))
        await worker.declare()
        await store["orders"].insert("a", {})
        async with store.transaction() as tx:
            await tx.connection.execute(f"TRUNCATE {schema}.orders".encode())
        await store["orders"].insert("b", {})

        async def has_failed_again() -> bool:
            letters = await store.dead_letters(consumer=name)
            return [(each.state, each.attempts) for each in letters] == [("dead", 2), ("parked", 0), ("parked", 0)]

        async def all_are_stored() -> bool:
            return len(await store.dead_letters(consumer=name)) == 3

        async with running(worker):
            await until(all_are_stored)
            await store.retry_dead_letters(consumer=name)
            await until(has_failed_again)
            assert await effects(store) == []
            bad.clear()
            await store.retry_dead_letters(consumer=name)
            await count(store, "effects", 3)
        assert await effects(store) == ["a", None, "b"]
