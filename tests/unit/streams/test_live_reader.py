"""How the hub thread's loop reads, reconnects and ends, with sessions that read nothing from a server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from pgdoc.changes.assembler import Assembler
from pgdoc.changes.registry import Registry
from pgdoc.changes.router import Selection
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.decoding.records import Span
from pgdoc.errors import HistoryLost, ServerUnreachable
from pgdoc.replication.reader import Reader
from pgdoc.replication.session import ReplicationSession
from pgdoc.replication.source import Cluster, SlotStart, Source
from pgdoc.streams.catchup import CatchUp
from pgdoc.streams.live_reader import LiveReader
from pgdoc.streams.mailbox import Mailbox
from pgdoc.streams.subscriptions import Subscriptions
from tests.unit.decoding.test_pgoutput import ROW
from tests.unit.pgoutput_wire import ORDERS, begin, commit, relation

if TYPE_CHECKING:
    from pgdoc.changes.change import Burst
    from pgdoc.changes.fanout import Subscription

CLUSTER = Cluster(7, 1)


def keepalive(wal_end: int) -> bytes:
    return b"k" + wal_end.to_bytes(8) + bytes(8) + b"\0"


class Server:
    """Opens sessions, each of which reads what its script says: frames, an error to raise, or a call to make."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = list(scripts)
        self.opened_at: list[int | None] = []
        self.readers: list[mock.Mock] = []

    def open_reader(self, _source: Source, at: int | None, **options: Any) -> ReplicationSession:
        self.opened_at.append(at)
        script = self.scripts.pop(0)
        if isinstance(script[0], Exception):
            raise script[0]
        if check := options.get("check"):
            check(CLUSTER)
        steps = iter(script)

        def read(_timeout_s: float) -> list[bytes]:
            step = next(steps)
            if isinstance(step, Exception):
                raise step
            if callable(step):
                step()
                return []
            return [step]

        start = at or 100
        reader = mock.create_autospec(Reader, instance=True)
        reader.read, reader.slot, reader.wal_end = read, f"slot {len(self.readers)}", start
        reader.is_quiet = reader.has_large_buffer = False
        reader.waited_at = reader.clock_ahead_s = 0.0
        self.readers.append(reader)
        assembler = Assembler(start, Registry("docs", [Span(ORDERS, "docs", "orders", 0, None)]))
        return ReplicationSession(
            reader, PLUGINS["pgoutput"].decoder("docs"), assembler, CLUSTER, SlotStart(start, "pgoutput")
        )


class Run:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closing = threading.Event()
        self.subscriptions = Subscriptions()
        self.catchup = mock.create_autospec(CatchUp, instance=True)
        self.live = LiveReader(Source("", "docs"), self.subscriptions, self.closing)
        self._monkeypatch = monkeypatch

    def __call__(self, server: Server) -> None:
        self._monkeypatch.setattr("pgdoc.streams.live_reader.open_reader", server.open_reader)
        self.live.begin(self.live.open())
        self.live.run(self.catchup)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


def test_it_confirms_what_it_dispatched_until_the_store_is_closed(run):
    server = Server([keepalive(150), keepalive(170), run.closing.set])
    run(server)
    assert run.subscriptions.watermark == 170
    assert server.readers[0].confirm.mock_calls == [mock.call(150), mock.call(170)]
    assert server.readers[0].close.called
    assert run.live.slot is None
    assert run.live.plugin == "pgoutput"


def test_the_first_frames_of_a_transaction_are_nothing_to_dispatch_and_a_stream_that_opens_then_gets_all_of_it(run):
    early, late, dispatched = Mailbox(10, 1 << 20), Mailbox(10, 1 << 20), []

    def open_late() -> None:
        assert run.subscriptions.watermark == 100
        assert run.subscriptions.resume(Selection(), (100, 0, 0, 0), late, run.subscriptions.ids)[1]

    def note(burst: Burst) -> list[Subscription]:
        dispatched.append((len(burst.changes), burst.watermark))
        return Subscriptions.dispatch(run.subscriptions, burst)

    run.subscriptions.dispatch = note
    opening = [lambda: run.subscriptions.subscribe(Selection(), early), begin(200), relation(), ROW, open_late]
    run(Server([*opening, commit(200, 208), keepalive(208), keepalive(220), run.closing.set]))
    assert dispatched == [(1, 208), (0, 220)]
    assert [[change.position for change in box.take(0)] for box in (early, late)] == [[(200, 10, 1, 0)]] * 2


def test_it_logs_the_position_as_an_lsn_and_the_end_of_an_outage(run, caplog):
    caplog.set_level("INFO", "pgdoc.hub")
    run(Server([keepalive(0x1_015B5568), ServerUnreachable("cut")], [run.closing.set]))
    found = [record.getMessage() for record in caplog.records]
    assert found == ["reconnecting at 1/15B5568: cut", "connected again, and goes on"]


def test_it_reconnects_at_the_watermark_as_often_as_it_takes(run):
    seen: list[bool] = []

    def note_and_close() -> None:
        seen.append(run.live.is_reconnecting)
        run.closing.set()

    server = Server(
        [keepalive(150), ServerUnreachable("cut")],
        [ServerUnreachable("still away")],
        [note_and_close],
    )
    run(server)
    assert server.opened_at == [None, 150, 150]
    assert seen == [False]
    assert all(reader.close.called for reader in server.readers)


def test_an_error_that_a_retry_cannot_repair_ends_it(run):
    with pytest.raises(HistoryLost):
        run(Server([keepalive(150), ServerUnreachable("cut")], [HistoryLost("lost")]))
    assert run.live.is_reconnecting
    with pytest.raises(HistoryLost):
        run(Server([keepalive(150), HistoryLost("lost")]))


def test_it_stops_reconnecting_when_the_store_is_closed(run):
    server = Server([keepalive(150), ServerUnreachable("cut")])
    threading.Timer(0.02, run.closing.set).start()
    run(server)
    assert server.opened_at == [None]
    assert run.live.slot is None


def test_each_round_forgets_abandoned_streams_and_queues_requested_ones(run):
    box = Mailbox(10, 1 << 20)

    def abandon() -> None:
        run.subscriptions.abandon(run.subscriptions.subscribe(Selection(), box))

    run(Server([abandon, run.closing.set]))
    assert box.closed
    assert run.catchup.queue_requests.call_count == 2


def test_waking_it_and_asking_for_a_report_do_nothing_without_a_session(run):
    run.live.wake()
    run.live.report_soon()
    assert run.live.slot is None
    server = Server([run.closing.set])

    def wake() -> None:
        run.live.wake()
        run.live.report_soon()

    server.scripts[0].insert(0, wake)
    run(server)
    assert server.readers[0].wake.called
    assert server.readers[0].report_soon.called
