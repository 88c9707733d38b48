"""A subscriber of a broadcast, wherever it reads: in the ring, or in a stream of its own, ahead of it or behind."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.web.broadcast import BroadcastReading
from pgdoc.web.reading import ReadBatch
from pgdoc.web.ring import StreamRing
from tests.unit.web.test_ring import Numbered, place

if TYPE_CHECKING:
    from pgdoc.web.ring import Ring


class Log:
    """What the server has: the numbers of the events, and how far its WAL goes."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.numbers: list[int] = []
        self.end = 0
        self.is_over = False

    def write(self) -> None:
        for _ in range(self.data.draw(st.integers(0, 3))):
            self.end += self.data.draw(st.integers(1, 2))
            self.numbers.append(self.end)
        self.end += self.data.draw(st.integers(0, 1))

    def reached_from(self, begin: int) -> int:
        """Return how far a reader comes: to the end, once nothing more is written."""
        return self.end if self.is_over else self.data.draw(st.integers(begin, self.end))

    def after(self, begin: int, end: int) -> list[int]:
        return [number for number in self.numbers if begin < number <= end]


class Own:
    """A stream of the subscriber's own."""

    def __init__(self, log: Log, after: int) -> None:
        self.log, self.at, self.is_open = log, after, False

    async def next(self, _timeout_s: float) -> ReadBatch:
        if not self.is_open:
            self.is_open = True
            return ReadBatch((), place(self.at))
        end = self.log.reached_from(self.at)
        entries = [Numbered(number) for number in self.log.after(self.at, end)]
        self.at = end
        return ReadBatch(entries, place(end))

    async def close(self) -> None:
        pass


class Shared:
    """The broadcast's own reading, which the test moves on, and which may lose its place."""

    mode = "live"
    begins_with_snapshot = False

    def __init__(self, log: Log, keep: int) -> None:
        self.log, self.keep, self.at = log, keep, 0
        self.ring: Ring = StreamRing(place(0), keep, 1000)

    @property
    def is_behind(self) -> bool:
        return self.at < self.log.end

    def move(self) -> None:
        if not self.log.is_over and self.log.data.draw(st.integers(0, 9)) == 0:
            self.at = self.log.end
            self.ring = StreamRing(place(self.at), self.keep, 1000)
            return
        end = self.log.reached_from(self.at)
        self.ring.extend([Numbered(number) for number in self.log.after(self.at, end)], place(end))
        self.at = end

    def start(self, token: Any) -> None:
        pass

    async def arrival(self, timeout_s: float) -> None:
        pass

    def whole(self) -> None:
        return None

    def own_stream(self, after: str | None) -> Own:
        if not after:
            return Own(self.log, self.log.end)
        return Own(self.log, int(after.partition(".")[0].partition("/")[2], 16))


@given(st.data())
def test_a_subscriber_gets_every_event_after_its_token_once_and_in_order(data: st.DataObject) -> None:
    log = Log(data)
    shared = Shared(log, data.draw(st.integers(1, 4)))

    async def run() -> None:
        log.write()
        shared.move()
        oldest_begin = log.end
        has_token = data.draw(st.booleans())
        begin = data.draw(st.integers(0, log.end))
        broadcast: Any = SimpleNamespace(_shared=shared)
        reading = BroadcastReading(broadcast, str(place(begin)) if has_token else None, hides=False)
        got: list[int] = []
        told = begin
        steps = data.draw(st.integers(1, 25))
        for step in range(steps + 50):
            log.is_over = step >= steps
            if not log.is_over and data.draw(st.booleans()):
                log.write()
            if log.is_over or data.draw(st.booleans()):
                shared.move()
            batch = await reading.next(0.0)
            if not has_token and batch.token is not None:  # it begins now, though the broadcast may be behind
                has_token, begin = True, int(batch.token.lsn)
                assert begin >= oldest_begin
                told = begin
            got += [entry.number for entry in batch.entries if isinstance(entry, Numbered)]
            if batch.token is not None:
                assert batch.token.lsn >= told
                told = int(batch.token.lsn)
            assert got == log.after(begin, told)
        assert told == log.end

    asyncio.run(run())


def test_a_stream_whose_end_is_cancelled_is_ended_when_the_subscriber_leaves() -> None:
    """The browser can leave at the moment when its own stream has met the ring."""

    async def run() -> None:
        is_closing = asyncio.Event()
        closed: list[bool] = []

        class Slow(Own):
            async def close(self) -> None:
                is_closing.set()
                await asyncio.sleep(0)
                closed.append(True)

        log: Any = SimpleNamespace(numbers=[], end=5)
        shared = Shared(log, 1)
        shared.ring = StreamRing(place(5), 1, 1000)
        shared.own_stream = lambda _after: Slow(log, 3)  # type: ignore[method-assign,assignment]
        log.reached_from, log.after = lambda _begin: 5, lambda _begin, _end: []
        broadcast: Any = SimpleNamespace(_shared=shared)
        reading = BroadcastReading(broadcast, str(place(3)), hides=False)
        await reading.next(0.0)
        reads = asyncio.create_task(reading.next(0.0))
        await is_closing.wait()
        reads.cancel()
        await asyncio.wait([reads])
        await reading.close()
        assert closed == [True]

    asyncio.run(run())
