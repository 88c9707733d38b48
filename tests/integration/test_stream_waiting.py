"""Waiting and cancellation of streams that are read by threads and by tasks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import pytest

from pgdoc import AsyncStore, ChangeEvent, Store
from pgdoc.errors import HistoryLost, StreamClosed, StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from pgdoc import AsyncChangeStream, ChangeStream

INSERT = "INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(%s::int, %s::int) AS n"


def _close_stream(stream: ChangeStream, store: Store) -> None:
    stream.close()


def _close_store(stream: ChangeStream, store: Store) -> None:
    store.close()


@pytest.mark.parametrize("close", [_close_stream, _close_store])
def test_closing_in_another_thread_ends_a_wait(
    shared_dsn: str, schema: str, close: Callable[[ChangeStream, Store], None]
) -> None:
    with Store(shared_dsn, schema=schema) as store, ThreadPoolExecutor() as pool:
        stream = store["orders"].watch()
        iteration = pool.submit(list, stream)
        close(stream, store)
        assert iteration.result(timeout=20) == []
        with pytest.raises(StreamClosed):
            stream.next(timeout=20)


def test_streams_are_read_by_many_threads(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store, ThreadPoolExecutor(10) as pool:
        streams = [store["orders"].watch(buffer_size=50) for _ in range(10)]
        reading = [pool.submit(lambda one: [_id(one) for _ in range(3000)], stream) for stream in streams]
        sql.execute(INSERT, [1, 3000])
        expected = [str(n) for n in range(1, 3001)]
        assert all(each.result() == expected for each in reading)


async def test_closing_in_another_task_ends_a_wait(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for close_all in (False, True):
            stream = await store["orders"].watch()
            iteration = asyncio.create_task(_ids(stream))
            await asyncio.sleep(0)
            await (store if close_all else stream).close()
            assert await iteration == []


async def test_a_cancelled_next_loses_nothing(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store, store["orders"].watch(buffer_size=100) as stream:
        got: list[str | None] = []
        attempts = cancelled = 0
        sql.execute(INSERT, [1, 1000])
        writing = asyncio.create_task(asyncio.to_thread(sql.execute, INSERT, [1001, 2000]))
        while len(got) < 2000:
            attempts += 1
            reading = asyncio.create_task(stream.next())
            for _ in range(attempts % 4):
                await asyncio.sleep(0)
            reading.cancel()
            event = (await asyncio.gather(reading, return_exceptions=True))[0]
            if isinstance(event, asyncio.CancelledError):
                cancelled += 1
                event = await stream.next() if attempts % 7 == 0 else None
            if isinstance(event, ChangeEvent):
                got.append(event.document_id)
        await writing
    assert cancelled > 0
    assert got == [str(n) for n in range(1, 2001)]


async def test_many_streams_share_a_loop_with_other_work(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        streams = [await store["orders"].watch(buffer_size=200) for _ in range(20)]
        reading = [asyncio.create_task(_ids(stream, 1000)) for stream in streams]
        await asyncio.to_thread(sql.execute, INSERT, [1, 1000])
        expected = [str(n) for n in range(1, 1001)]
        assert all(ids == expected for ids in await asyncio.gather(*reading))


async def _ids(stream: AsyncChangeStream, count: int = -1) -> list[str | None]:
    ids: list[str | None] = []
    async for event in stream:
        ids.append(event.document_id)
        if len(ids) == count:
            break
    return ids


async def test_a_stream_is_awaited_or_entered(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        awaited = await store["orders"].watch()
        unopened = store["orders"].watch()
        async with store["orders"].watch() as entered, awaited as entered_too:
            assert entered_too is awaited
            await store["orders"].insert("o-1", {})
            for stream in (entered, awaited):
                event = await stream.next(20)
                assert event is not None
                assert event.document_id == "o-1"
        assert unopened.stats().mode == "closed"
        reading = asyncio.create_task(unopened.next())
        await _until_live(unopened)
        await store["orders"].insert("o-2", {})
        event = await reading
        assert event is not None
        assert event.document_id == "o-2"
        await unopened.close()


async def _until_live(stream: AsyncChangeStream) -> None:
    while stream.stats().mode != "live":  # noqa: ASYNC110 (a stream has no asyncio event for it)
        await asyncio.sleep(0.01)


async def test_a_cancelled_open_leaves_nothing_behind(shared_dsn: str, schema: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema) as store:
        for after_ms in range(0, 60, 3):
            opening = asyncio.create_task(_open(store))
            await asyncio.sleep(after_ms / 1000)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        async with store["orders"].watch() as stream:
            await store["orders"].insert("o-1", {})
            assert await stream.next(20) is not None


async def _open(store: AsyncStore) -> None:
    async with store["orders"].watch():
        pass


def test_a_slow_stream_holds_nobody_up(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    """The slow stream buffers 50 of 20,000 changes and reads none until the fast stream has read all."""
    with Store(shared_dsn, schema=schema) as store:
        fast, slow = store["orders"].watch(buffer_size=30_000), store["orders"].watch(buffer_size=50)
        for first in range(1, 20_000, 2_000):
            sql.execute(INSERT, [first, first + 1_999])
        expected = [str(n) for n in range(1, 20_001)]
        assert [_id(fast) for _ in expected] == expected
        assert slow.stats().mode == "catching_up"
        assert slow.stats().buffered <= 50
        assert [_id(slow) for _ in expected] == expected
        _poll_until_live(slow)
        sql.execute(INSERT, [20_001, 20_001])
        assert _id(fast) == _id(slow) == "20001"


def _id(stream: ChangeStream) -> str | None:
    event = stream.next(timeout=30)
    assert event is not None
    return event.document_id


def _poll_until_live(stream: ChangeStream) -> None:
    """Read until the stream is live again: reading makes room in the buffer, after which it can leave catch-up."""
    deadline = time.monotonic() + 60
    while stream.stats().mode != "live":
        assert time.monotonic() < deadline
        assert stream.next(timeout=0.05) is None


def test_large_documents_are_bounded_by_bytes(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    with Store(shared_dsn, schema=schema) as store:
        stream = store["orders"].watch(buffer_bytes=3 << 20)
        fast = store["orders"].watch()
        for number in range(10):
            sql.execute(
                "INSERT INTO orders (id, data) VALUES (%s, jsonb_build_object('x', repeat('x', 1 << 20)))",
                [str(number)],
            )
        assert [_id(fast) for _ in range(10)] == [str(number) for number in range(10)]
        assert stream.stats().buffered <= 3
        sql.execute("INSERT INTO orders (id, data) VALUES ('huge', jsonb_build_object('x', repeat('x', 5 << 20)))")
        assert [_id(stream) for _ in range(11)] == [*(str(number) for number in range(10)), "huge"]


def test_two_stores_in_threads_do_not_affect_each_other(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    """Stores open and close while others stream; each stream receives everything written after it opened."""
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("orders")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            sql.execute(INSERT, [number, number])

    def read() -> bool:
        with Store(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
            numbers = [int(_id(stream) or 0) for _ in range(50)]
            return numbers == list(range(numbers[0], numbers[0] + 50))

    with ThreadPoolExecutor(5) as pool:
        writing = pool.submit(write)
        try:
            reading = [pool.submit(read) for _ in range(8)]
            assert all(each.result() for each in reading)
        finally:
            stop.set()
        writing.result()


def test_slow_streams_with_small_buffers_leave_the_catching_up_to_others(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    stop = threading.Event()

    def read_slowly(stream: ChangeStream) -> int:
        seen = 0
        while not stop.is_set():
            seen += stream.next(timeout=0.1) is not None
            time.sleep(0.1)
        return seen

    with Store(shared_dsn, schema=schema) as store, ThreadPoolExecutor() as pool:
        with store["orders"].watch() as stream:
            token = stream.resume_token
        sql.execute(INSERT, [1, 4000])
        slow = [store["orders"].watch(resume_after=token, buffer_size=4) for _ in range(2)]
        reading = [pool.submit(read_slowly, stream) for stream in slow]
        try:
            while min(stream.stats().delivered for stream in slow) < 8:  # by then each has its own reader
                time.sleep(0.01)
            with store["orders"].watch(resume_after=token) as fast:
                events = [fast.next(timeout=60)]
                events += [fast.next(timeout=30) for _ in range(3999) if events[0]]
        finally:
            stop.set()
        assert [event and event.document_id for event in events] == [str(n) for n in range(1, 4001)]
        assert all(0 < each.result() < 4000 for each in reading)


def test_opening_a_stream_while_the_shared_reader_fails_asks_to_open_it_again(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch() as stream:
            token = stream.resume_token
        streams, hub = store._streams, store._streams.hub
        oldest = streams.oldest

        def lose_it(_burst: object) -> NoReturn:
            raise HistoryLost("the server lost it")

        def oldest_and_then_the_end() -> int | None:
            hub.subscriptions._fanout.dispatch = lose_it  # type: ignore[method-assign, assignment]
            store["orders"].insert("o-1", {})
            assert hub._thread is not None
            hub._thread.join(20)
            return oldest()

        streams.oldest = oldest_and_then_the_end  # type: ignore[method-assign]
        with pytest.raises(StreamError, match="open it again"):
            store["orders"].watch(resume_after=token)
        streams.oldest = oldest  # type: ignore[method-assign]
        with store["orders"].watch(resume_after=token) as stream:
            event = stream.next(timeout=20)
            assert event is not None
            assert event.document_id == "o-1"


def test_a_store_belongs_to_the_process_that_created_it(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].watch(), monkeypatch.context() as child:
        child.setattr("pgdoc.streams.hub.os.getpid", lambda: -1)
        with pytest.raises(StreamError, match="forked"):
            store["orders"].watch()


def test_a_process_that_ends_closes_its_streams(shared_dsn: str, schema: str) -> None:
    code = f"import pgdoc; pgdoc.Store({shared_dsn!r}, schema={schema!r})['orders'].watch()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
