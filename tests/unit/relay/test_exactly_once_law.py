"""Whatever a log loses, repeats or forgets between a relay and itself, it gets each message once, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgdoc._sync import relay_windows
from pgdoc._sync.relay_windows import Reopen, Windows
from pgdoc.model.tokens import Mark
from pgdoc.relay import outbound
from pgdoc.relay.beginning import StoredEnd, find_beginning
from pgdoc.relay.config import LogConfig
from pgdoc.relay.figures import RelayFigures
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.relay.outbound import Outbound
from tests.unit.relay.relayed import ModelLog, ModelWriter, event, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent
    from pgdoc.relay.beginning import Beginning

LIMIT = 600
CONFIG = LogConfig(system_id=7, database_oid=5, selection="", format="pgdoc", partitions=4)
kinds = st.sampled_from(["", "", "cut", "silent", "hole", "other", "forget"])
faults = st.lists(st.tuples(kinds, st.integers(0, 5)), max_size=20)
lives = st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6)


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    thread = LoopThread("law")
    yield thread
    thread.close()


@pytest.fixture(scope="module", autouse=True)
def in_a_hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay_windows, "FIRST_DELAY_S", 0.0)
        patch.setattr(outbound, "WINDOW_BYTES", 2 * LIMIT)
        yield


class Relay:
    """A relay without a consumer: it remembers what would be stored with its position."""

    def __init__(self, events: list[ChangeEvent], writer: ModelWriter, thread: LoopThread) -> None:
        self._events, self._writer, self._thread = events, writer, thread
        self._position = 0
        self._stored: StoredEnd | None = None
        self.figures = RelayFigures("consumer", "log")

    def live(self, batches: int, *, confirms: bool, batch: int) -> None:
        """Run for some batches; it may end without a word, as if it were killed."""
        windows = Windows(self._writer, self._thread, self.figures, log="the log", stops=lambda: False)
        try:
            end = windows.open(CONFIG)
            begun_at = token(self._position) if self._position else token(0)
            windows.outbound = self._outbound(find_beginning(end, self._stored, begun_at, "the log"))
            for at in range(self._position, min(len(self._events), self._position + batches * batch), batch):
                windows.send(self._events[at : at + batch], self._mark_of)
            if confirms:
                windows.land(0)
                self._confirm(windows)
        except Reopen:
            pass

    @staticmethod
    def _mark_of(event: ChangeEvent) -> Mark:
        return Mark((event.transaction_id,))

    def _outbound(self, beginning: Beginning) -> Outbound:
        assert not beginning.is_gap
        return Outbound(beginning, partitions=4, limit=LIMIT)

    def _confirm(self, windows: Windows) -> None:
        if windows.landed:
            landed = windows.landed[-1]
            windows.check(landed.sequence)
            self._position = landed.mark.position[0]
            self._stored = StoredEnd(landed.sequence, windows.identity)


async def ran_before() -> None:
    """Run in the log's thread, after everything that was submitted before."""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([10, 300, 1500]), min_size=1, max_size=25), faults, lives, st.integers(1, 6))
def test_a_log_gets_each_message_once_in_order(
    thread: LoopThread, sizes: list[int], faults: list[tuple[str, int]], lives: list[tuple[int, bool]], batch: int
) -> None:
    events = [event(number, size) for number, size in enumerate(sizes, 1)]
    whole = Outbound(find_beginning(ModelLog([]).end, None, token(0), ""), partitions=4, limit=LIMIT)
    wanted = [message for window, _ in whole.windows_of(events) for message in window]
    log = ModelLog(wanted)
    relay = Relay(events, ModelWriter(log, iter(faults), limit=LIMIT), thread)
    for batches, confirms in [*lives, (len(events), True), (len(events), True), *[(len(events), True)] * len(faults)]:
        thread.submit(ran_before()).result()  # what a former life has sent may make the log forget
        if log.forgotten and log.forgotten >= log.entries and relay._stored is None:
            return  # nobody can tell: a relay reports a gap
        relay.live(batches, confirms=confirms, batch=batch)
    assert log.entries == len(wanted)
