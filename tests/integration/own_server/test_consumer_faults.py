"""Consumers that lose their process, connections, slot or server lose and repeat no acknowledged event."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store
from pgdoc.consumers.slots import find_cluster, open_slot
from pgdoc.errors import ConsumerLost, HistoryLost, ServerUnreachable
from pgdoc.model.names import call_channel
from tests.integration.own_server.client import Client
from tests.integration.own_server.consumers import (
    NAME,
    confirmed,
    drop_bookmarks,
    drop_slot,
    effect,
    end_ownership,
    end_walsender,
    ids,
    insert,
    silence,
    slot,
    status,
    take,
)
from tests.integration.own_server.words import PATIENCE_S, said, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from pgdoc.replication.session import ReplicationSession
    from pgdoc.server import LocalServer
    from tests.proxy import Proxy

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def test_a_killed_owner_has_a_successor(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    with Client(dsn, NAME) as client:
        insert(store, 1, 2, 3, 4, 5)
        before = confirmed(owner)
        assert [client.ask("next") for _ in range(3)] == ["1", "2", "3"]
        assert client.ask("ack") == "done"
        wait_until(lambda: confirmed(owner) > before)
        assert client.ask("next") == "4"
        with store["orders"].watch(consumer=NAME, auto_ack=False) as standby:
            assert standby.next(timeout=0.2) is None
            client.kill()
            assert ids(take(standby, 2)) == [4, 5]
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        assert ids(take(stream, 2)) == [4, 5]


@pytest.mark.parametrize("lost", ["walsender", "ownership", "both"])
def test_a_consumer_reconnects_after_lost_connections(store: Store, owner: psycopg.Connection, lost: str) -> None:
    with store["orders"].watch(consumer=NAME, buffer_size=3) as stream:
        for number in range(0, 40, 10):
            insert(store, *range(number, number + 10))
            if lost in {"walsender", "both"}:
                end_walsender(owner)
            if lost in {"ownership", "both"}:
                end_ownership(owner, store)
            assert ids(take(stream, 10)) == list(range(number, number + 10))
            wait_until(lambda: stream.try_next() is None and stream.stats().mode == "live")
        wait_until(lambda: status(store).owner_pid)
        assert stream.stats().recreated == 0


def test_a_consumer_warns_once_for_each_loss_and_says_when_it_is_over(
    cluster: LocalServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pgdoc.consumer")

    def times(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    with store["orders"].watch(consumer=NAME) as stream:
        for number in range(2):
            caplog.clear()
            with cluster.stopped():
                wait_until(lambda: times("not reconnected yet"))
            insert(store, number)
            assert ids(take(stream, 1)) == [number]
            wait_until(lambda: stream.try_next() is None and stream.stats().mode == "live")
            assert (times(": reconnecting at "), times(": connected again")) == (1, 1)


def test_nothing_stored_is_repeated_after_a_restart(
    cluster: LocalServer, store: Store, owner: psycopg.Connection
) -> None:
    """In a crash, PostgreSQL 15 forgets positions confirmed since its last checkpoint."""
    with (
        store["orders"].watch(consumer=NAME, auto_ack=False) as stream,
        store["orders"].watch(consumer="other") as other,
    ):
        owner.execute("CHECKPOINT")
        insert(store, *range(9))
        acknowledged = take(other, 5)[3]
        wait_until(lambda: [each for each in store.consumers() if each.place == acknowledged.resume_token])
        for event in take(stream, 5):
            effect(store, stream, event)
        cluster.restart("immediate")
        for event in take(stream, 2):
            effect(store, stream, event)
        cluster.restart("fast")
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        assert ids(take(stream, 2)) == [7, 8]
    with store["orders"].watch(consumer="other") as other:
        assert ids(take(other, 5)) == [4, 5, 6, 7, 8]
    assert store["audit"].count() == 7


def test_a_slot_dropped_under_a_consumer_is_made_again(
    store: Store, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False, buffer_size=4) as stream:
        for number in range(0, 40, 10):
            insert(store, *range(number, number + 10))
            events = take(stream, 2)
            drop_slot(owner)
            assert ids([*events, *take(stream, 8)]) == list(range(number, number + 10))
            stream.ack(events[1])
        assert stream.stats().recreated == 0
    assert f'its slot "{slot(owner)}" is gone' in caplog.text
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 8)) == list(range(32, 40))


def test_a_slot_dropped_meanwhile_is_made_again(store: Store, owner: psycopg.Connection) -> None:
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 1, 2, 3)
        take(stream, 2)
    drop_slot(owner)
    assert (status(store).lag_bytes, status(store).retained_bytes, status(store).wal_status) == (None, None, None)
    insert(store, 4)
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 3)) == [2, 3, 4]
    assert status(store).wal_status == "reserved"


def test_a_consumer_whose_slot_has_no_history_is_lost_or_begins_again(
    store: Store, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 60.0)
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 1, 2)
        take(stream, 1)
    drop_slot(owner)
    drop_bookmarks(owner)
    message = said(HistoryLost, lambda: store["orders"].watch(consumer=NAME))
    assert f'consumer "billing" can\'t go on: its slot "{slot(owner)}" is gone, and position ' in message
    assert "Rebuild what it feeds, and let it begin anew, from now: run `pgdoc consumers recreate billing`" in message
    assert 'or open it with on_lost="recreate"' in message
    with store["orders"].watch(consumer=NAME, on_lost="recreate") as stream:
        assert stream.stats().recreated == 1
        insert(store, 3)
        (event,) = take(stream, 1)
        assert ids([event]) == [3]
        effect(store, stream, event)
    assert 'consumer "billing" begins again at ' in caplog.text
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 4)
        assert ids(take(stream, 1)) == [4]
        assert stream.stats().recreated == 0


def test_a_recreated_consumer_restarts_its_snapshot(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 60.0)
    insert(store, 1, 2)
    with store["orders"].watch(consumer=NAME, snapshot=True, on_lost="recreate") as stream:
        assert ids(take(stream, 2)) == [1, 2]
        drop_bookmarks(owner)
        drop_slot(owner)
        wait_until(lambda: stream.stats().recreated == 1)
        store["orders"].delete("1")
        insert(store, 3)
        assert ids(take(stream, 2)) == [2, 3]
    with store["orders"].watch(consumer=NAME, snapshot=True) as stream:
        insert(store, 4)
        assert ids(take(stream, 2)) == [3, 4]


def test_buffered_events_can_be_checkpointed_after_a_consumer_is_recreated(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 60.0)
    with store["orders"].watch(consumer=NAME, on_lost="recreate") as stream:
        insert(store, 1, 2, 3)
        wait_until(lambda: stream.stats().buffered == 3)
        drop_bookmarks(owner)
        drop_slot(owner)
        wait_until(lambda: stream.stats().recreated == 1)
        for event in take(stream, 3):
            effect(store, stream, event)
        insert(store, 4)
        (event,) = take(stream, 1)
        effect(store, stream, event)
        assert ids([event]) == [4]
    assert store["audit"].count() == 4


def test_a_slot_that_lost_its_wal_is_history_lost(store: Store, owner: psycopg.Connection) -> None:
    store.watch(consumer=NAME).close()
    insert(store, 1)
    owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
    try:
        owner.execute("SELECT pg_reload_conf()")
        for _ in range(5):
            owner.execute("SELECT pg_logical_emit_message(true, 'noise', '')")
            owner.execute("SELECT pg_switch_wal()")
        owner.execute("CHECKPOINT")
        wait_until(lambda: status(store).wal_status == "lost")
        message = said(HistoryLost, lambda: store.watch(consumer=NAME))
        assert f'its slot "{slot(owner)}" has lost its WAL, and position' in message
        with store["orders"].watch(consumer=NAME, on_lost="recreate") as stream:
            insert(store, 2)
            assert ids(take(stream, 1)) == [2]
    finally:
        owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        owner.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_paused_owner_that_wakes_up_can_do_nothing(
    dsn: str, store: Store, owner: psycopg.Connection, in_transaction: bool
) -> None:
    """The test ends the paused session; otherwise the server does that after half a minute."""
    with Client(dsn, NAME) as client:
        insert(store, 1, 2, 3)
        assert [client.ask("next") for _ in range(2)] == ["1", "2"]
        if in_transaction:
            assert client.ask("begin") == "done"
        with store["orders"].watch(consumer=NAME, auto_ack=False) as standby:
            client.pause()
            end_ownership(owner, store)
            events = take(standby, 3)
            assert ids(events) == [1, 2, 3]
            client.wake()
            if in_transaction:
                assert client.ask("commit") != "done"
            assert client.ask("checkpoint") == "ConsumerLost"
            effect(store, standby, events[0])
            assert store["audit"].count() == 1
            last = [client.ask("next") for _ in range(2)]
            assert last[-1] == "ConsumerLost"
            effect(store, standby, events[1])


def test_an_owner_that_was_paused_while_its_consumer_was_dropped_and_created_again_can_do_nothing(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    with store["orders"].watch() as stream:
        start = stream.resume_token
    with Client(dsn, NAME) as client:
        insert(store, 1)
        assert client.ask("next") == "1"
        client.pause()
        end_ownership(owner, store)
        assert store.drop_consumer(NAME)
        with store["orders"].watch(consumer=NAME, resume_after=start) as stream:
            (event,) = take(stream, 1)
        client.wake()
        assert client.ask("checkpoint") == "ConsumerLost"
        assert client.ask("next") == "ConsumerLost"
        assert event.document_id == "1"
    assert store["audit"].count() == 0


def test_dropping_an_open_consumer_ends_its_stream(store: Store, owner: psycopg.Connection) -> None:
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 1)
        (event,) = take(stream, 1)
        owner.execute("DELETE FROM pgdoc.consumers")
        with pytest.raises(ConsumerLost, match="taken over by another process, or dropped"):
            effect(store, stream, event)
        with pytest.raises(ConsumerLost, match="taken over by another process, or dropped: open it again to stand by"):
            stream.next(timeout=PATIENCE_S)
    assert store.drop_consumer(NAME)


def test_a_takeover_that_fails_halfway_is_retried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_once(*args: Any, **options: Any) -> ReplicationSession:
        if failures:
            raise failures.pop()
        return open_slot(*args, **options)

    failures = [ServerUnreachable("the connection was lost")]
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        insert(store, 1)
        take(stream, 1)
        standby = store["orders"].watch(consumer=NAME, on_lost="recreate")
        monkeypatch.setattr("pgdoc.consumers.slot_reading.open_slot", fail_once)
    with standby:
        assert ids(take(standby, 1)) == [1]
        assert standby.stats().recreated == 0


def test_a_takeover_may_take_longer_than_the_lease(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy server is slow to open the other connections of a takeover."""

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*args: Any, **options: Any) -> Any:
            time.sleep(1.2)
            return call(*args, **options)

        return slowly

    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 1)
    monkeypatch.setattr("pgdoc.consumers.consumer.find_cluster", slow(find_cluster))
    monkeypatch.setattr("pgdoc.consumers.slot_reading.open_slot", slow(open_slot))
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 1)
        assert ids(take(stream, 1)) == [1]
        ((ttl,),) = owner.execute("SELECT ttl FROM pgdoc.owners").fetchall()
        assert ttl == timedelta(seconds=1)
    assert "reconnecting" not in caplog.text


def test_an_owner_that_is_silent_loses_its_consumer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 1)
    with store["orders"].watch(consumer=NAME) as stream, store["orders"].watch(consumer=NAME) as standby:
        insert(store, 1)
        (event,) = take(stream, 1)
        silence(stream, monkeypatch)
        assert ids(take(standby, 1)) == [1]
        with pytest.raises(ConsumerLost):
            effect(store, stream, event)
        with pytest.raises(ConsumerLost):
            stream.next(timeout=PATIENCE_S)


def test_a_paused_owner_loses_its_consumer_though_its_session_is_flooded(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    """Any role can send it notifications; what the server can't send keeps it from ending the idle session."""
    with Client(dsn, NAME) as client:
        client.pause()
        flood = "SELECT pg_notify(%s, repeat('x', 7000) || i) FROM generate_series(1, 2000) i"
        owner.execute(flood, [call_channel(NAME)])
        wait_until(lambda: owner.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'ClientWrite'").fetchall())
        owner.execute("UPDATE pgdoc.owners SET ttl = '0.1 s'")
        insert(store, 1)
        with store["orders"].watch(consumer=NAME) as standby:
            assert ids(take(standby, 1)) == [1]


def test_an_owner_behind_a_silent_network_loses_its_consumer(
    store: Store, proxied_dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither side learns that the network is gone; the owner still reads when it is back."""
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 1)
    with Store(proxied_dsn) as far, far["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        insert(store, 1, 2)
        (event, _) = take(stream, 2)
        with store["orders"].watch(consumer=NAME) as standby:
            proxy.stall()
            assert ids(take(standby, 2)) == [1, 2]
            insert(store, 3)
            assert ids(take(standby, 1)) == [3]
            proxy.resume()
            stream.ack(event)
            with pytest.raises(ConsumerLost):
                effect(far, stream, event)
            with pytest.raises(ConsumerLost):
                stream.next(timeout=PATIENCE_S)
            insert(store, 4)
            assert ids(take(standby, 1)) == [4]
