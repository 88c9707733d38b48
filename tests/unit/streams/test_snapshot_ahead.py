"""A stream that reads its snapshot ahead delivers each document once, whatever interrupts it, and leaves no thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from pgdoc._async.snapshot_reader import AsyncSnapshotReader
from pgdoc._async.stream import AsyncChangeStream
from pgdoc._sync.snapshot_reader import SnapshotReader
from pgdoc._sync.stream import ChangeStream
from pgdoc.changes.change import Change
from pgdoc.changes.router import Selection
from pgdoc.changes.snapshot import Snapshot
from pgdoc.decoding.records import Images, RowChange
from pgdoc.errors import SerializationFailure, ServerUnreachable, StreamClosed, UnsupportedServer
from pgdoc.model.tokens import SnapshotProgress
from pgdoc.runtime.deadline import is_closing
from pgdoc.streams.batch import BATCH
from tests.unit.changes.test_snapshot import NOW
from tests.unit.interrupts import Interrupt
from tests.unit.streams.test_delivery import NAMES, WHEN, Feed, asked, in_batches, iterated, polled, stream_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeEvent

IDS = [f"k{number}" for number in range(7)]
END = 5  # of the WAL, when each part is read
PATIENCE_S = 30.0


class Live(Feed):
    """A feed that has come to the end of the WAL."""

    live_position = (9, 9, 1, 0)


class Table:
    """Answers the reads of a snapshot, with two documents each; `read` is called first."""

    def __init__(self, read: Callable[[str], object] = lambda _after: None) -> None:
        self.read = read

    def read_part(self, _name: str, _stored: int, _printed: int, after: str, _most: int, *, limit_s: float) -> Any:
        assert limit_s > 0
        self.read(after)
        keys = [key for key in IDS if key > after]
        found, texts, columns = len(keys[:2]), b"\0".join([b"{}"] * len(keys[:2])), bytes(24 * len(keys[:2]))
        ids = "\0".join(keys[:2]).encode() or None
        return [(False, "5:5:", END, NOW, 100 if len(keys) > 2 else found, ids, texts, columns)]


def updated(lsn: int, key: str) -> Change:
    image = {"id": key, "data": "{}", "created_at": None, "updated_at": None}
    images = Images({**image, "version": 2, "replaced_version": 1}, {**image, "version": 1, "replaced_version": None})
    row = RowChange(lsn, "U", "orders", b"_", complete=True, read=lambda _message: images)
    return Change((lsn, lsn, 1, 0), WHEN, row)


def stream_over(table: Table, kind: Any = ChangeStream, reader_kind: Any = SnapshotReader) -> Any:
    stream = stream_of(kind)
    stream._delivery.feed = Live()
    reader = reader_kind(mock.Mock(read_part=table.read_part))
    reader._documents = 10
    stream._snapshot_reader = reader
    progress = SnapshotProgress(tuple(NAMES), "", "*", 0)
    stream._delivery.begin_snapshot(Snapshot(progress, Selection(NAMES)), reader.read_ahead)
    return stream


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pgdoc-ahead"]


def brief(events: list[ChangeEvent]) -> list[str]:
    return [f"{event.event_type} {event.document_id}" for event in events]


def test_no_part_is_read_on_the_thread_of_the_user() -> None:
    """A KeyboardInterrupt there could cost the pool a connection."""
    readers: list[str] = []

    def read(after: str) -> None:
        readers.append(threading.current_thread().name)
        if after and len(readers) < 4:  # a part that has to be read once more
            raise ServerUnreachable("away")

    stream = stream_over(Table(read))
    assert len([stream.next(timeout=PATIENCE_S) for _ in IDS]) == len(IDS)
    assert len(readers) > 4
    assert set(readers) == {"pgdoc-ahead"}


@pytest.mark.parametrize("take", [iterated, asked, polled, in_batches])
def test_an_interrupt_at_any_step_loses_and_repeats_nothing(take: Callable[[ChangeStream], list[ChangeEvent]]) -> None:
    step = 0
    while True:
        stream = stream_over(Table())
        stream._mailbox.put([updated(7, "k0"), updated(8, "k0")], (8, 8, 1, 0))
        got: list[str] = []
        interrupt = Interrupt(step)
        while len(got) < len(IDS) + 2:
            events: list[ChangeEvent] = []
            with interrupt:
                events = take(stream)
            got += brief(events)
        existing = [each for each in got if each.startswith("snapshot")]
        assert existing == [f"snapshot {key}" for key in IDS], f"interrupted at step {step}"
        assert got.count("update k0") == 2  # in any place: an interrupted stream may have read no part ahead
        assert stream.next(timeout=0) is None
        if interrupt.step >= 0:
            break
        step += 1
    assert step > 200
    for thread in threads():
        thread.join(PATIENCE_S)
    assert not threads()


def test_the_next_part_is_read_while_one_is_delivered() -> None:
    asked_for: list[str] = []
    stream = stream_over(Table(asked_for.append))
    assert brief([stream.next()]) == ["snapshot k0"]
    for thread in threads():
        thread.join(PATIENCE_S)
    assert asked_for == ["", "k1"]


def test_changes_wait_for_a_part_that_is_being_read_and_a_call_waits_no_longer_than_it_says() -> None:
    go_on = threading.Event()
    stream = stream_over(Table(lambda after: after == "" or go_on.wait(PATIENCE_S)))
    stream._mailbox.put([updated(7, "k0")], (8, 8, 1, 0))
    assert brief(stream.next_batch(2)) == ["snapshot k0", "snapshot k1"]
    assert stream.next(timeout=0) is None
    assert stream.next(timeout=0.01) is None
    assert stream.stats().buffered == 1
    go_on.set()
    got: list[str] = []
    while len(got) < len(IDS) - 1:
        got += brief(stream.next_batch())
    assert got == [*(f"snapshot {key}" for key in IDS[2:]), "update k0"]


def test_a_part_that_could_not_be_read_ahead_is_read_when_it_is_needed() -> None:
    faults = [UnsupportedServer("this one is raised"), ServerUnreachable("this one is not")]

    def read(after: str) -> None:
        if after == "k1" and faults:
            raise faults.pop()

    stream = stream_over(Table(read))
    assert brief(stream.next_batch(2)) == ["snapshot k0", "snapshot k1"]
    with pytest.raises(UnsupportedServer):
        stream.next(timeout=PATIENCE_S)


@pytest.mark.parametrize("fault", [ServerUnreachable("away"), SerializationFailure("another transaction came between")])
def test_a_part_is_read_again_after_what_passes(fault: Exception) -> None:
    faults = [fault]

    def read(after: str) -> None:
        if after == "k3" and faults:
            raise faults.pop()

    stream = stream_over(Table(read))
    assert brief([stream.next(timeout=PATIENCE_S) for _ in IDS]) == [f"snapshot {key}" for key in IDS]
    assert not faults


def test_a_loop_over_a_snapshot_lets_other_tasks_run() -> None:
    class AsyncTable(Table):
        async def read_part(self, *_args: Any, **_limits: Any) -> Any:
            keys = [f"k{number:04}" for number in range(3 * BATCH)]
            texts, columns = b"\0".join([b"{}"] * len(keys)), bytes(24 * len(keys))
            return [(False, "5:5:", END, NOW, len(keys), "\0".join(keys).encode(), texts, columns)]

    async def main() -> list[int]:
        runs, seen = 0, []

        async def other() -> None:
            nonlocal runs
            while True:
                runs += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        stream = stream_over(AsyncTable(), AsyncChangeStream, AsyncSnapshotReader)
        stream._snapshot_reader._documents = 10_000
        for _ in range(3 * BATCH):
            await stream.__anext__()
            seen.append(runs)
        task.cancel()
        return seen

    seen = asyncio.run(main())
    assert seen[0] < seen[BATCH + 1] < seen[-1]


def test_closing_a_stream_frees_the_thread_that_reads_ahead() -> None:
    at_end = threading.Event()

    def read(after: str) -> None:
        while after and not is_closing() and not at_end.wait(0.001):
            pass

    stream = stream_over(Table(read))
    stream.next()
    (reading,) = threads()
    stream.close()
    reading.join(PATIENCE_S)
    assert not reading.is_alive()
    at_end.set()
    with pytest.raises(StreamClosed):
        stream.next()
