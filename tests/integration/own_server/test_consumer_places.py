"""What counts as acknowledged and when it is confirmed to the server, in the cases that are easy to get wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc.consumers.takeover import StartPoint, Takeover
from pgdoc.errors import ConsumerLost, HistoryLost, ServerUnreachable
from pgdoc.replication.reader import Reader
from pgdoc.replication.session import identify
from tests.integration.own_server.consumers import (
    NAME,
    confirmed,
    effect,
    end_ownership,
    end_walsender,
    ids,
    insert,
    status,
    take,
)
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pgdoc import Store
    from pgdoc.replication.source import Cluster

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def test_polling_does_not_acknowledge_an_undelivered_invalidate(store: Store) -> None:
    stream = store["orders"].watch(consumer=NAME, auto_ack=False)
    store.drop_collection("orders")
    (drop,) = take(stream, 1)
    stream.ack(drop)
    stream.close()
    with store["orders"].watch(consumer=NAME) as stream:
        stream.ack()
    with store["orders"].watch(consumer=NAME) as stream:
        assert [event.event_type for event in take(stream, 1)] == ["invalidate"]


def test_acknowledgements_are_stored_although_the_reader_fails_just_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_reader: Reader) -> None:
        raise ServerUnreachable("the connection was lost just then")

    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 60.0)  # nothing is saved in between
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        insert(store, 1, 2, 3)
        events = take(stream, 3)
        monkeypatch.setattr(Reader, "report_confirmed", broken)
        stream.ack(events[1])
    monkeypatch.undo()
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [3]


def test_a_drop_that_ends_no_stream_pins_no_wal(store: Store, owner: psycopg.Connection) -> None:
    with store.watch("orders", "audit") as other:
        store.drop_collection("audit")
        (drop,) = take(other, 1)
    with store.watch("orders", "audit", consumer=NAME, resume_after=drop.resume_token, auto_ack=False) as stream:
        assert stream.next(timeout=0.2) is None
        ((end,),) = owner.execute("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchall()
        wait_until(lambda: stream.try_next() is None and confirmed(owner) >= end)


def test_acknowledgements_are_confirmed_while_nothing_is_read(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.filling.PATIENCE_S", 0.2)
    with store["orders"].watch(consumer=NAME, auto_ack=False, buffer_size=300) as stream:
        insert(store, *range(400))
        wait_until(lambda: stream.stats().mode == "catching_up" and stream.stats().buffered == 300)
        wait_until(lambda: not owner.execute("SELECT FROM pg_stat_replication WHERE state = 'streaming'").fetchall())
        events = take(stream, 50)
        stream.ack(events[-1])
        wait_until(lambda: confirmed(owner) > events[-1].resume_token.lsn)
        assert stream.stats().buffered == 250


def test_snapshot_progress_that_cannot_be_read_does_not_end_a_running_consumer(
    store: Store, owner: psycopg.Connection
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        owner.execute("UPDATE pgdoc.consumers SET snapshot = 'unreadable'")
        for number in range(3):
            before = confirmed(owner)
            insert(store, number)
            (event,) = take(stream, 1)
            stream.ack(event)
            wait_until(lambda before=before: confirmed(owner) > before)  # type: ignore[misc]
            assert stream.next(timeout=0.3) is None  # longer than the interval of the heartbeat
        owner.execute("UPDATE pgdoc.consumers SET snapshot = NULL")


def test_a_checkpoint_is_confirmed_when_no_crash_can_take_it_back(
    store: Store, owner: psycopg.Connection, admin: psycopg.Connection
) -> None:
    admin.execute("ALTER DATABASE test SET synchronous_commit = off")
    admin.execute("ALTER SYSTEM SET wal_writer_delay = '1s'")
    admin.execute("SELECT pg_reload_conf()")
    try:
        with type(store)(store._conninfo) as hasty, hasty["orders"].watch(consumer=NAME) as stream:
            for number in range(3):
                insert(hasty, number)
                (event,) = take(stream, 1)
                effect(hasty, stream, event)
                ((written,),) = owner.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchall()
                wait_until(lambda place=event.resume_token.lsn: confirmed(owner) > place)  # type: ignore[misc]
                ((flushed,),) = owner.execute("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchall()
                assert flushed >= written
    finally:
        admin.execute("ALTER SYSTEM RESET wal_writer_delay")
        admin.execute("SELECT pg_reload_conf()")


def test_a_former_owner_receives_no_event_that_its_successor_starts_with(
    store: Store, owner: psycopg.Connection
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as former:
        insert(store, *range(400))
        assert ids(take(former, 1)) == [0]
        with store["orders"].watch(consumer=NAME, auto_ack=False) as successor:
            wait_until(lambda: _taken_over(owner, store, successor))
            assert ids(take(successor, 1)) == [0]
            wait_until(lambda: former.stats().mode == "closed")  # it has noticed the takeover
            with pytest.raises(ConsumerLost):
                former.next(timeout=PATIENCE_S)


def _taken_over(owner: psycopg.Connection, store: Store, successor: Any) -> bool:
    if successor.stats().mode == "standby":
        end_ownership(owner, store)
    return bool(successor.stats().mode == "live")


def test_a_wal_that_went_back_ends_the_stream(store: Store, monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    """As when a server is restored under an open consumer: its events would wrongly count as acknowledged."""
    with store["orders"].watch(consumer=NAME, on_lost="recreate") as stream:
        insert(store, 1)
        take(stream, 1)
        earlier = StartPoint((1, 0, 0, 0), 1, anew=True)
        monkeypatch.setattr(Takeover, "go_on", lambda _self, _after, _needed_from: earlier)
        end_walsender(owner)
        with pytest.raises(HistoryLost, match="Open the consumer again to begin at the end of that WAL"):
            stream.next(timeout=PATIENCE_S)
    assert status(store).place.lsn > 1


def test_a_connection_lost_during_any_statement_is_reopened(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: psycopg.Connection
) -> None:
    failures = [psycopg.OperationalError("gone"), psycopg.errors.AdminShutdown("gone")]

    def fail_first(connection: psycopg.Connection[Any]) -> Cluster:
        if failures:
            raise failures.pop()
        return identify(connection)

    with store["orders"].watch(consumer=NAME) as stream:
        monkeypatch.setattr("pgdoc.consumers.slots.identify", fail_first)
        end_walsender(owner)
        insert(store, 1)
        assert ids(take(stream, 1)) == [1]
    assert not failures
