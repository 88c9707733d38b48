"""`collected` and `running`, the context managers for tests of streams and workers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc.testing import collected, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(own_schema: dict[str, Any]) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(**own_schema) as store:
        store.create_collection("orders")
        yield store


def told(events: list[pgdoc.ChangeEvent]) -> list[tuple[str, str | None]]:
    return [(str(event.event_type), event.document_id) for event in events]


def test_collected_has_all_events_of_the_block_and_no_others(store: pgdoc.Store) -> None:
    store.create_collection("others")
    store["orders"].insert("before", {})
    with collected(store, "orders") as events, collected(store) as of_all, collected(store, topics=["sent"]) as sent:
        store["orders"].insert("o-1", {})
        store["others"].insert("o-2", {})
        store.publish("sent", {"to": "ann"}, key="o-1")
    store["orders"].insert("after", {})
    assert told(events) == [("insert", "o-1")]
    assert told(of_all) == [("insert", "o-1"), ("insert", "o-2")]
    assert told(sent) == [("message", "o-1")]


def test_collected_is_empty_after_a_block_that_writes_nothing(store: pgdoc.Store) -> None:
    with collected(store, "orders") as events:
        store["orders"].update_many({"status": "new"}, {"$set": {"status": "paid"}})
    assert events == []


def test_collected_lets_an_error_of_the_block_through(store: pgdoc.Store) -> None:
    with pytest.raises(KeyError, match="of the block"), collected(store, "orders"):
        raise KeyError("of the block")


def test_collected_says_so_if_the_time_is_over(store: pgdoc.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "publish", lambda *_: None)  # so the end of the block never arrives
    with pytest.raises(pgdoc.WaitTimeout, match=r"within 0.1 s: \d did; pass a longer timeout"):  # noqa: SIM117
        with collected(store, "orders", timeout=0.1):
            store["orders"].insert("o-1", {})


async def test_collected_works_with_an_async_store(own_schema: dict[str, Any]) -> None:
    async with pgdoc.AsyncStore(**own_schema) as store, collected(store, "orders") as events:
        await store["orders"].insert("o-1", {})
        await store["orders"].delete("o-1")
    assert told(events) == [("insert", "o-1"), ("delete", "o-1")]


def test_running_runs_a_worker_that_misses_nothing_of_the_block(store: pgdoc.Store) -> None:
    worker = pgdoc.Worker(store)

    @worker.on("orders", consumer="totals")
    def keep_total(tx: pgdoc.Transaction, event: pgdoc.ChangeEvent) -> None:
        tx["totals"].insert(str(event.document_id), {})

    with running(worker) as same:
        assert same is worker
        store["orders"].insert("o-1", {})
        store.wait_for("totals")
        assert store["totals"].get("o-1") is not None
    assert not worker.is_running
    store.drop_consumer("totals")


async def test_running_runs_an_async_worker(own_schema: dict[str, Any]) -> None:
    async with pgdoc.AsyncStore(**own_schema) as store:
        worker = pgdoc.AsyncWorker(store)

        @worker.on("orders", consumer="async_totals")
        async def keep_total(tx: pgdoc.AsyncTransaction, event: pgdoc.ChangeEvent) -> None:
            await tx["totals"].insert(str(event.document_id), {})

        async with running(worker):
            await store["orders"].insert("o-1", {})
            await store.wait_for("async_totals")
            assert await store["totals"].get("o-1") is not None
        assert not worker.is_running
        await store.drop_consumer("async_totals")


class Broken:
    """A program that ends with an error as soon as it is told to stop."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def run(self) -> None:
        self._stopped.wait(20)
        raise KeyError("of the program")

    def stop(self) -> None:
        self._stopped.set()


class AsyncBroken:
    async def run(self) -> None:
        raise KeyError("of the program")

    def stop(self) -> None:
        pass


def test_running_raises_what_ended_the_program() -> None:
    with pytest.raises(KeyError, match="of the program"), running(Broken()):
        pass


def test_running_raises_the_error_of_the_block_first() -> None:
    with pytest.raises(KeyError, match="of the block") as caught, running(Broken()):
        raise KeyError("of the block")
    assert caught.value.__notes__ == ["Broken.run() raised KeyError('of the program')"]


async def test_running_raises_what_ended_an_async_program() -> None:
    with pytest.raises(KeyError, match="of the program"):
        async with running(AsyncBroken()):
            pass


async def test_running_raises_the_error_of_an_async_block_first() -> None:
    with pytest.raises(KeyError, match="of the block") as caught:
        async with running(AsyncBroken()):
            raise KeyError("of the block")
    assert caught.value.__notes__ == ["AsyncBroken.run() raised KeyError('of the program')"]


def test_running_refuses_what_does_not_run() -> None:
    with pytest.raises(TypeError, match=r"running\(\) takes a worker or a relay, got None"):
        running(None)  # type: ignore[type-var]


async def test_running_says_which_kind_of_block_a_program_needs(own_schema: dict[str, Any]) -> None:
    async with pgdoc.AsyncStore(**own_schema) as store:
        with pytest.raises(TypeError, match=r"AsyncWorker is asynchronous: use async with running\(\.\.\.\)"):
            running(pgdoc.AsyncWorker(store)).__enter__()  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"Broken is synchronous: use with running\(\.\.\.\)"):
        await running(Broken()).__aenter__()  # type: ignore[misc]


async def test_collected_says_which_kind_of_block_a_store_needs(own_schema: dict[str, Any]) -> None:
    async with pgdoc.AsyncStore(**own_schema) as store:
        with pytest.raises(TypeError, match=r"AsyncStore is asynchronous: use async with collected\(\.\.\.\)"):
            collected(store).__enter__()  # type: ignore[misc]
    with (
        pgdoc.Store(**own_schema) as other,
        pytest.raises(TypeError, match=r"Store is synchronous: use with collected"),
    ):
        await collected(other).__aenter__()  # type: ignore[misc]
