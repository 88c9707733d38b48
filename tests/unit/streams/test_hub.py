from __future__ import annotations

import threading
from unittest import mock

import pytest

from pgdoc.changes.router import Selection
from pgdoc.errors import StoreClosed, StreamError
from pgdoc.replication.source import Cluster, Source
from pgdoc.streams.hub import Hub
from pgdoc.streams.mailbox import Mailbox


@pytest.fixture
def hub() -> Hub:
    return Hub(Source("", "docs"))


def test_a_hub_that_reads_nothing_has_nothing_to_report(hub):
    assert (hub.slot, hub.plugin, hub.watermark, hub.wal_end) == (None, None, 0, 0)
    assert not hub.is_started
    assert not hub.is_reconnecting
    hub.report_soon()


def test_no_stream_is_opened_without_the_hub_thread(hub):
    with pytest.raises(StreamError, match="open it again"):
        hub.subscribe(Selection(), Mailbox(1, 1))
    with pytest.raises(StreamError, match="open it again"):
        hub.resume(Selection(), (1, 0, 0, 0), Mailbox(1, 1), hub.subscriptions.ids)


def test_a_closed_hub_opens_and_starts_nothing(hub):
    hub.close()
    hub.close()
    for use in (hub.start, hub.keep_history, hub.check_usable, lambda: hub.subscribe(Selection(), Mailbox(1, 1))):
        with pytest.raises(StoreClosed):
            use()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pgdoc-hub")]


def test_a_hub_that_started_no_thread_is_the_childs_own_after_a_fork(hub, monkeypatch):
    monkeypatch.setattr("pgdoc.streams.hub.os.getpid", lambda: -1)
    with pytest.raises(StreamError, match="forked"):
        hub.check_usable()
    hub.after_fork()
    hub.check_usable()


def test_a_hub_with_threads_can_not_be_used_after_a_fork(hub, monkeypatch):
    hub._thread = threading.Thread()
    monkeypatch.setattr("pgdoc.streams.hub.os.getpid", lambda: -1)
    hub.after_fork()
    with pytest.raises(StreamError, match="forked"):
        hub.check_usable()
    assert hub.begin_to_close().done()  # the threads are the parent's


def test_a_stream_that_is_opened_while_the_start_fails_ends_with_the_error(hub, monkeypatch):
    box = Mailbox(1, 1)
    session = mock.Mock(cluster=Cluster(7421, 3), assembler=mock.Mock(watermark=3000))

    def fail() -> None:
        hub.subscribe(Selection(), box)  # by a thread that waited for an earlier start
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(hub._live, "open", lambda: session)
    monkeypatch.setattr(hub._keeper, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        hub.start().result(30)
    with pytest.raises(RuntimeError, match="new thread"):
        box.take(0)
    assert not hub.is_started
    hub.close()
