from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.decoding.records import RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.errors import HistoryLost, StreamClosed
from pgdoc.streams.batch import BATCH, Batch
from pgdoc.streams.mailbox import AsyncMailbox, Mailbox

if TYPE_CHECKING:
    from collections.abc import Coroutine

WHEN = TransactionInfo(1, "2026-11-23 03:41:13+00", None)
NOWHERE = (0, 0, 0, 0)


def changes(count: int, *, size: int = 10, first: int = 1) -> list[Change]:
    rows = [
        RowChange(lsn, "I", "orders", b"_" * size, complete=True, read=read_images)
        for lsn in range(first, first + count)
    ]
    return [Change((row.lsn, row.lsn, 1, 0), WHEN, row) for row in rows]


def take(mailbox: Mailbox | AsyncMailbox) -> list[Change]:
    """Take everything from either kind of mailbox without waiting, and free its room."""
    batch = mailbox.take(0) if isinstance(mailbox, Mailbox) else asyncio.run(mailbox.take(0))
    return use_up(batch)


def use_up(batch: Batch) -> list[Change]:
    batch.next = len(batch)
    return batch


both = pytest.mark.parametrize("kind", [Mailbox, AsyncMailbox])


@both
def test_what_was_put_is_taken_in_order_a_batch_at_a_time(kind):
    mailbox, put = kind(1000, 10**6), changes(BATCH + 10)
    assert mailbox.put(put, (999, 0, 0, 0)) == len(put)
    assert take(mailbox) == put[:BATCH]
    assert take(mailbox) == put[BATCH:]
    assert take(mailbox) == []


@both
def test_it_takes_as_many_as_it_has_room_for_and_what_was_taken_last_counts(kind):
    mailbox, put = kind(3, 10**6), changes(5)
    assert mailbox.put(put, NOWHERE) == 3
    assert take(mailbox) == put[:3]
    assert mailbox.buffered == 0  # nothing waits to be taken, and yet there is no room
    assert mailbox.put(put[3:], NOWHERE) == 0
    assert take(mailbox) == []
    assert mailbox.put(put[3:], NOWHERE) == 2


@both
def test_bytes_fill_it_too_but_one_change_always_fits(kind):
    mailbox = kind(100, 25)
    assert mailbox.put(changes(5), NOWHERE) == 2
    take(mailbox)
    take(mailbox)
    assert mailbox.put(changes(2, size=1000), NOWHERE) == 1
    assert mailbox.put(changes(1), NOWHERE) == 0


@given(st.integers(1, 5), st.integers(1, 50), st.lists(st.lists(st.integers(1, 40), max_size=6) | st.none()))
def test_it_never_holds_more_than_its_bounds(size, size_bytes, steps):
    """`None` takes; a list puts changes of these sizes."""
    mailbox, lsn, given_to, held = Mailbox(size, size_bytes), itertools.count(1), [], []
    for step in steps:
        if step is None:
            held = take(mailbox)
            given_to += held
        else:
            put = [change for each in step for change in changes(1, size=each, first=next(lsn))]
            taken = put[: mailbox.put(put, NOWHERE)]
            held = held + taken
        in_bytes = sum(len(change.row.message) for change in held)
        assert len(held) <= size
        assert in_bytes <= size_bytes or len(held) == 1
    assert [change.position for change in given_to] == sorted(change.position for change in given_to)


@both
def test_reached_is_the_position_that_was_put_once_nothing_waits(kind):
    mailbox = kind(2, 10**6)
    mailbox.put([], (5, 0, 0, 0))
    assert mailbox.reached() == (5, 0, 0, 0)
    mailbox.put(changes(1), (6, 0, 0, 0))
    assert mailbox.reached() == NOWHERE
    take(mailbox)
    assert mailbox.reached() == NOWHERE
    take(mailbox)
    assert mailbox.reached() == (6, 0, 0, 0)


@both
def test_reached_does_not_pass_what_there_was_no_room_for(kind):
    mailbox = kind(1, 10**6)
    assert mailbox.put(changes(2), (6, 0, 0, 0)) == 1
    take(mailbox)
    take(mailbox)
    assert mailbox.reached() == NOWHERE


@both
def test_reached_does_not_pass_what_close_dropped(kind):
    mailbox = kind(10, 10**6)
    mailbox.put(changes(2), (6, 0, 0, 0))
    mailbox.close()
    with pytest.raises(StreamClosed):
        take(mailbox)
    assert (mailbox.reached(), mailbox.buffered) == (NOWHERE, 0)


@both
def test_reached_stays_when_close_dropped_nothing(kind):
    mailbox = kind(10, 10**6)
    mailbox.put([], (6, 0, 0, 0))
    mailbox.close()
    assert mailbox.reached() == (6, 0, 0, 0)


@both
def test_what_lies_before_the_beginning_is_thrown_away(kind):
    mailbox = kind(4, 40)
    mailbox.put(changes(4), NOWHERE)
    mailbox.begin_at((3, 0, 0, 0))
    assert mailbox.put(changes(2, first=5), NOWHERE) == 2
    assert [change.position[0] for change in take(mailbox)] == [3, 4, 5, 6]


@both
def test_a_batch_that_is_not_used_up_is_given_again(kind):
    mailbox, put = kind(10, 10**6), changes(5)
    mailbox.put(put, NOWHERE)
    batch = asyncio.run(mailbox.take(0)) if kind is AsyncMailbox else mailbox.take(0)
    batch.next = 3
    assert take(mailbox) is batch
    assert mailbox.buffered == 0
    assert take(mailbox) == []


@both
def test_an_interrupt_between_taking_and_forgetting_repeats_nothing(kind):
    mailbox, put = kind(10, 100), changes(6)
    mailbox.put(put[:4], NOWHERE)
    use_up(mailbox._take_now(256))
    assert [run for run, _ in mailbox._queue] == [put[:4]]  # a batch leaves the queue when the next one is taken
    mailbox.put(put[4:], NOWHERE)
    assert take(mailbox) == put[4:]
    assert take(mailbox) == []
    assert mailbox.put(changes(10, first=7), NOWHERE) == 10


@both
def test_it_calls_once_when_it_is_half_empty(kind):
    mailbox, calls = kind(4, 10**6), []
    mailbox.put(changes(3), NOWHERE)
    mailbox.call_when_room(lambda: calls.append("room"))
    take(mailbox)
    assert calls == []
    take(mailbox)
    assert calls == ["room"]
    mailbox.put(changes(3), NOWHERE)
    take(mailbox)
    take(mailbox)
    assert calls == ["room"]


@both
def test_it_calls_at_once_if_it_is_half_empty_now(kind):
    mailbox, calls = kind(4, 10**6), []
    mailbox.put(changes(2), NOWHERE)
    mailbox.call_when_room(lambda: calls.append("room"))
    assert calls == ["room"]


@both
def test_half_empty_is_not_enough_for_a_change_that_is_larger_than_half(kind):
    mailbox, calls, large = kind(100, 100), [], changes(1, size=80)
    mailbox.put(changes(3), NOWHERE)
    assert mailbox.put(large, NOWHERE) == 0
    mailbox.call_when_room(lambda: calls.append(mailbox.put(large, NOWHERE)))
    assert calls == []
    take(mailbox)
    take(mailbox)
    assert calls == [1]


@both
def test_closing_calls_those_that_wait_for_room(kind):
    mailbox, calls = kind(1, 10**6), []
    mailbox.put(changes(1), NOWHERE)
    mailbox.call_when_room(lambda: calls.append("closed"))
    mailbox.close()
    assert calls == ["closed"]


@both
def test_an_error_comes_after_everything_that_was_put_and_only_once(kind):
    mailbox, error = kind(10, 10**6), HistoryLost("gone")
    mailbox.put(changes(2), NOWHERE)
    mailbox.fail(error)
    mailbox.fail(HistoryLost("later"))
    assert len(take(mailbox)) == 2
    with pytest.raises(HistoryLost, match="gone"):
        take(mailbox)
    with pytest.raises(StreamClosed) as raised:
        take(mailbox)
    assert raised.value.__cause__ is error


@both
def test_a_closed_mailbox_drops_what_it_has_and_what_is_put(kind):
    mailbox = kind(10, 10**6)
    mailbox.put(changes(2), NOWHERE)
    mailbox.close()
    assert mailbox.closed
    assert mailbox.put(changes(2), NOWHERE) == 2
    with pytest.raises(StreamClosed):
        take(mailbox)


def in_thread(target: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def test_a_thread_that_waits_is_woken_by_what_is_put():
    mailbox, put = Mailbox(10, 10**6), changes(1)
    feeder = in_thread(mailbox.put, put, NOWHERE)
    assert mailbox.take(None) == put
    feeder.join()


def test_a_thread_that_waits_is_woken_by_close_and_by_an_error():
    for end in (Mailbox.close, lambda mailbox: mailbox.fail(StreamClosed("lost"))):
        mailbox = Mailbox(10, 10**6)
        ender = in_thread(end, mailbox)
        with pytest.raises(StreamClosed):
            mailbox.take(None)
        ender.join()


def test_waiting_ends_with_the_time():
    assert Mailbox(10, 10**6).take(0.001) == []
    assert asyncio.run(AsyncMailbox(10, 10**6).take(0.001)) == []


async def waiting(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task, and run it until it waits."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def test_a_task_that_waits_is_woken_from_another_thread_again_and_again():
    async def main() -> list[int]:
        mailbox, seen = AsyncMailbox(1000, 10**6), []
        for number in range(1, 50):
            task = await waiting(mailbox.take(None))
            await asyncio.to_thread(mailbox.put, changes(1, first=number), NOWHERE)
            seen += [change.position[0] for change in use_up(await task)]
        return seen

    assert asyncio.run(main()) == list(range(1, 50))


def test_a_task_that_waits_is_woken_by_close_and_by_an_error():
    async def main(end: Any) -> None:
        mailbox = AsyncMailbox(10, 10**6)
        task = await waiting(mailbox.take(None))
        await asyncio.to_thread(end, mailbox)
        with pytest.raises(StreamClosed):
            await task

    asyncio.run(main(AsyncMailbox.close))
    asyncio.run(main(lambda mailbox: mailbox.fail(StreamClosed("lost"))))


@pytest.mark.parametrize("before", [True, False])
def test_a_call_that_is_cancelled_has_taken_nothing(before):
    async def main() -> list[Change]:
        mailbox = AsyncMailbox(10, 10**6)
        task = await waiting(mailbox.take(None))
        if before:
            mailbox.put(changes(1), NOWHERE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not before:
            mailbox.put(changes(1), NOWHERE)
        return await mailbox.take(None)

    assert asyncio.run(main()) == changes(1)


@pytest.mark.parametrize("batch", [1, BATCH])
def test_a_stream_that_always_has_more_lets_other_tasks_run(batch):
    async def main() -> int:
        mailbox, runs = AsyncMailbox(10 * BATCH, 10**6), 0

        async def other() -> None:
            nonlocal runs
            while True:
                runs += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        for number in range(5 * BATCH // batch):
            mailbox.put(changes(batch, first=1 + number * batch), NOWHERE)
            use_up(await mailbox.take(None))
        task.cancel()
        return runs

    assert asyncio.run(main()) >= 4


def test_a_stream_that_is_polled_lets_other_tasks_run():
    async def poll() -> list[Change]:
        mailbox = AsyncMailbox(10, 10**6)
        putting = asyncio.create_task(asyncio.to_thread(mailbox.put, changes(1), NOWHERE))
        for _ in range(1_000_000):
            if taken := await mailbox.take(0):
                await putting
                return taken
        return []

    assert asyncio.run(poll()) == changes(1)


def test_a_loop_that_is_gone_is_nothing_to_a_feeder():
    mailbox = AsyncMailbox(10, 10**6)
    loop = asyncio.new_event_loop()
    task = loop.create_task(mailbox.take(None))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert mailbox.put(changes(1), NOWHERE) == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    task.get_coro().close()


@both
def test_a_mailbox_that_is_cut_delivers_nothing_that_was_put(kind):
    mailbox, error = kind(1000, 10**6), HistoryLost("gone")
    mailbox.put(changes(BATCH + 10), NOWHERE)
    batch = asyncio.run(mailbox.take(0)) if kind is AsyncMailbox else mailbox.take(0)
    batch.next = 3
    mailbox.cut(error)
    assert mailbox.buffered == 0
    with pytest.raises(HistoryLost):
        take(mailbox)


@both
def test_reached_does_not_pass_what_was_cut(kind):
    mailbox = kind(10, 10**6)
    mailbox.put(changes(2), (6, 0, 0, 0))
    mailbox.cut(HistoryLost("gone"))
    assert mailbox.reached() == NOWHERE


@both
def test_what_was_put_at_several_times_is_taken_together_in_order(kind):
    mailbox, put = kind(10 * BATCH, 10**6), changes(3 * BATCH)
    for start, end in ((0, 1), (1, 3), (3, BATCH + 10), (BATCH + 10, 3 * BATCH)):
        mailbox.put(put[start:end], NOWHERE)
    taken = [take(mailbox) for _ in range(4)]
    assert [len(batch) for batch in taken] == [BATCH, BATCH, BATCH, 0]
    assert [change for batch in taken for change in batch] == put


@both
def test_a_list_that_streams_share_stays_as_it_was_put(kind):
    one, other, put = kind(4, 10**6), kind(2, 10**6), changes(3)
    assert (one.put(put, NOWHERE, 30), other.put(put, NOWHERE, 30)) == (3, 2)
    one.begin_at((1, 1, 1, 0))
    one.put(changes(1, first=4), NOWHERE)
    assert [change.position[0] for change in take(one)] == [2, 3, 4]
    assert [change.position[0] for change in take(other)] == [1, 2]
    assert put == changes(3)


@given(st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(1, 50), min_size=1))
def test_any_sizes_of_runs_and_batches_deliver_everything_once(runs, most):
    mailbox, put, start = Mailbox(1000, 10**6), changes(sum(runs)), 0
    got: list[Change] = []
    for count in runs:
        mailbox.put(put[start : start + count], NOWHERE)
        start += count
    for each in itertools.cycle(most):
        batch = mailbox.take(0, each)
        use_up(batch)
        assert len(batch) <= each
        assert batch.size_bytes == 10 * len(batch)
        got += batch
        if not batch:
            break
    assert got == put
    assert (mailbox.buffered, mailbox._count, mailbox._bytes) == (0, 0, 0)


def test_a_stream_that_always_has_more_lets_other_tasks_run_between_its_batches():
    async def main() -> int:
        mailbox, runs, number = AsyncMailbox(10 * BATCH, 10**6), 0, 0

        async def other() -> None:
            nonlocal runs
            while True:
                runs += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        while number < 5 * BATCH:
            mailbox.put(changes(1, first=number + 1), NOWHERE)
            while not mailbox.refill():
                await mailbox.arrival()
            use_up(mailbox.batch)
            number += 1
        task.cancel()
        return runs

    assert asyncio.run(main()) >= 4


@pytest.mark.parametrize("before", [True, False])
def test_a_cancelled_arrival_has_taken_nothing(before):
    async def read(mailbox: AsyncMailbox) -> list[Change]:
        while not mailbox.refill():
            await mailbox.arrival()
        return use_up(mailbox.batch)

    async def main() -> list[Change]:
        mailbox = AsyncMailbox(10, 10**6)
        task = await waiting(read(mailbox))
        if before:
            mailbox.put(changes(1), NOWHERE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not before:
            mailbox.put(changes(1), NOWHERE)
        return await read(mailbox)

    assert asyncio.run(main()) == changes(1)


def test_only_a_stream_that_waits_is_woken():
    async def main() -> list[bool]:
        mailbox, seen = AsyncMailbox(10, 10**6), []
        await mailbox.take(0)
        seen.append(mailbox._is_awaited)
        await mailbox.take(0.001)
        mailbox.put(changes(1), NOWHERE)
        seen.append(mailbox._is_awaited)
        assert mailbox.refill()
        seen.append(mailbox._is_awaited)
        return seen

    assert asyncio.run(main()) == [False] * 3


@both
def test_a_stream_that_waits_finds_its_batch_made(kind):
    async def main() -> None:
        mailbox, put = kind(5, 10**6), changes(6)
        assert not mailbox.refill()
        assert mailbox.put(put[:3], (3, 0, 0, 0)) == 3
        assert mailbox.batch == put[:3]
        assert (mailbox.buffered, mailbox.reached()) == (3, NOWHERE)
        assert mailbox.put(put[3:], (6, 0, 0, 0)) == 2  # what was handed over counts
        assert mailbox.refill()
        assert use_up(mailbox.batch) == put[:3]
        assert mailbox.refill()
        assert use_up(mailbox.batch) == put[3:5]
        assert not mailbox.refill()
        assert (mailbox.buffered, mailbox.reached()) == (0, (3, 0, 0, 0))

    asyncio.run(main())


@both
@pytest.mark.parametrize(("count", "size_bytes"), [(BATCH + 1, 10**6), (2, 15)])
def test_what_is_too_much_for_one_batch_is_not_handed_over(kind, count, size_bytes):
    async def main() -> None:
        mailbox = kind(2 * BATCH, size_bytes)
        assert not mailbox.refill()
        taken = mailbox.put(changes(count), NOWHERE)
        assert not mailbox.batch
        assert mailbox.refill()
        assert use_up(mailbox.batch) == changes(min(taken, BATCH))

    asyncio.run(main())


@both
@pytest.mark.parametrize("end", ["close", "cut"])
def test_what_was_handed_over_is_dropped_with_the_rest(kind, end):
    async def main() -> None:
        mailbox = kind(10, 10**6)
        assert not mailbox.refill()
        mailbox.put(changes(1), (6, 0, 0, 0))
        if end == "close":
            mailbox.close()
        else:
            mailbox.cut(HistoryLost("gone"))
        with pytest.raises(StreamClosed if end == "close" else HistoryLost):
            mailbox.refill()
        assert (mailbox.buffered, mailbox.reached()) == (0, NOWHERE)

    asyncio.run(main())


def test_a_nudge_ends_the_present_wait_or_the_next_with_an_empty_batch():
    mailbox = Mailbox(10, 1000)
    mailbox.nudge()
    assert mailbox.take(None) == []
    nudging = in_thread(mailbox.nudge)
    assert mailbox.take(None) == []
    nudging.join()
    mailbox.nudge()
    mailbox.put(changes(1), NOWHERE)
    assert len(mailbox.take(None)) == 1


def test_a_nudge_wakes_a_task_from_any_thread():
    async def run() -> None:
        mailbox = AsyncMailbox(10, 1000)
        mailbox.nudge()
        assert await mailbox.take(None) == []
        for _ in range(3):
            waits = await waiting(mailbox.take(None))
            in_thread(mailbox.nudge).join()
            assert await asyncio.wait_for(waits, 20) == []
        mailbox.put(changes(1), NOWHERE)
        assert len(await mailbox.take(None)) == 1

    asyncio.run(run())
