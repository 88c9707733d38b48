"""A stream delivers each event once, whatever interrupts the thread or cancels the task that reads it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from pgdoc._async.stream import AsyncChangeStream
from pgdoc._sync.stream import ChangeStream
from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.router import Selection
from pgdoc.decoding.records import CollectionChange, RowChange
from pgdoc.decoding.wal2json import read_images
from pgdoc.errors import HistoryLost, StreamClosed
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.replication.reading import UNKNOWN
from pgdoc.streams.batch import BATCH
from pgdoc.streams.options import StreamOptions
from tests.unit.interrupts import Interrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeEvent

WHEN = TransactionInfo(1, "2026-11-23 03:41:13+00", None)
NAMES = frozenset({"orders"})


class Feed:
    """Feeds nothing; the test puts what it wants into the mailbox."""

    begun_at = BEFORE_ALL
    ids = (1, 1, 1)
    mode = "live"
    wal_end = recreated = 0
    live_position = BEFORE_ALL
    reading = UNKNOWN

    def leave(self) -> None: ...

    def abandon(self) -> None: ...


def stream_of(kind: type[Any]) -> Any:
    options = StreamOptions(
        where=None,
        snapshot=False,
        resume_after=None,
        consumer=None,
        auto_ack=False,
        wait=False,
        on_lost="raise",
        buffer_size=10_000,
        buffer_bytes=1 << 20,
        decode=None,
    )
    stream = kind(mock.Mock(), Selection(NAMES), options)
    stream._follow(Feed())
    return stream


def row(lsn: int) -> Change:
    return Change((lsn, lsn, 1, 0), WHEN, RowChange(lsn, "I", "orders", b"_", complete=True, read=read_images))


def of_collection(lsn: int, kind: str) -> Change:
    return Change((lsn, lsn, 0, 0), WHEN, CollectionChange(lsn, kind, "orders", b"_"))


def iterated(stream: ChangeStream) -> list[ChangeEvent]:
    return [stream.__next__()]


def asked(stream: ChangeStream) -> list[ChangeEvent]:
    event = stream.next()
    assert event is not None
    return [event]


def polled(stream: ChangeStream) -> list[ChangeEvent]:
    event = stream.next(timeout=0)
    return [] if event is None else [event]


def in_batches(stream: ChangeStream) -> list[ChangeEvent]:
    return stream.next_batch(2)


EXPECTED = [(1, "I"), (2, "I"), (3, "I"), (4, "create"), (5, "I"), (6, "drop"), (6, "invalidate")]


@pytest.mark.parametrize("take", [iterated, asked, polled, in_batches])
def test_an_interrupt_at_any_step_loses_and_repeats_nothing(take: Callable[[ChangeStream], list[ChangeEvent]]) -> None:
    step = 0
    while True:
        stream = stream_of(ChangeStream)
        mailbox = stream._mailbox
        mailbox.put([row(1), row(2)], (2, 2, 1, 0))
        mailbox.put([row(3), of_collection(4, "create"), row(5)], (5, 5, 1, 0))
        mailbox.put([of_collection(6, "drop")], (6, 6, 0, 0))
        got: list[tuple[int, str]] = []
        interrupt = Interrupt(step)
        while not stream._delivery.has_ended:
            events: list[ChangeEvent] = []
            with interrupt:
                events = take(stream)
            got += [(event.resume_token.position.commit_lsn, str(event._change.row.kind)) for event in events]
        assert got == EXPECTED, f"interrupted at step {step}"
        assert stream.stats().delivered == len(got)
        if interrupt.step >= 0:  # it never came to that step
            break
        step += 1
    assert step > 20


@pytest.mark.parametrize("take", [AsyncChangeStream.__anext__, AsyncChangeStream.next, AsyncChangeStream.next_batch])
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("before", [True, False])
def test_a_cancelled_call_has_taken_nothing(take: Callable[[Any], Any], turns: int, before: bool) -> None:
    async def main() -> list[int]:
        stream = stream_of(AsyncChangeStream)
        task = asyncio.ensure_future(take(stream))
        for _ in range(turns):
            await asyncio.sleep(0)
        if before:
            stream._mailbox.put([row(1), row(2)], BEFORE_ALL)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not before:
            stream._mailbox.put([row(1), row(2)], BEFORE_ALL)
        return [event.resume_token.position.commit_lsn for event in await stream.next_batch()]

    assert asyncio.run(main()) == [1, 2]


def test_a_loop_over_a_stream_that_always_has_more_lets_other_tasks_run() -> None:
    async def main() -> int:
        stream, runs, number = stream_of(AsyncChangeStream), 0, 0

        async def other() -> None:
            nonlocal runs
            while True:
                runs += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        stream._mailbox.put([row(1)], BEFORE_ALL)
        async for _ in stream:
            number += 1
            if number == 5 * BATCH:
                break
            stream._mailbox.put([row(number + 1)], BEFORE_ALL)
        task.cancel()
        return runs

    assert asyncio.run(main()) >= 4


def test_an_error_comes_after_the_events_before_it_and_closes_the_stream() -> None:
    stream = stream_of(ChangeStream)
    stream._mailbox.put([row(1)], BEFORE_ALL)
    stream._mailbox.fail(HistoryLost("gone"))
    assert next(stream).resume_token.position.commit_lsn == 1
    with pytest.raises(HistoryLost, match="gone"):
        next(stream)
    assert stream.closed
    assert list(stream) == []
    with pytest.raises(StreamClosed):
        stream.next()


def test_a_closed_stream_delivers_nothing_that_it_has_taken() -> None:
    stream = stream_of(ChangeStream)
    stream._mailbox.put([row(1), row(2)], BEFORE_ALL)
    next(stream)
    stream.close()
    assert list(stream) == []
