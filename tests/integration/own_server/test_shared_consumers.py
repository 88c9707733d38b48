"""A consumer that the hub feeds loses and repeats nothing, stays owned by one process, and keeps its slot."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import psycopg
import pytest

from pgdoc import Store
from pgdoc.consumers.ownership import Ownership
from pgdoc.errors import ConsumerLost, StreamError, UnreadableChange
from pgdoc.streams.subscriptions import Subscriptions
from tests.integration.own_server.client import Client
from tests.integration.own_server.consumers import (
    NAME,
    confirmed,
    drop_slot,
    effect,
    end_ownership,
    ids,
    insert,
    silence,
    slot,
    status,
    take,
)
from tests.integration.own_server.words import PATIENCE_S, wait_until
from tests.poison import insert_poison, make_poisonous

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, ChangeStream
    from pgdoc.changes.change import Burst
    from pgdoc.changes.fanout import Subscription
    from pgdoc.server import LocalServer

pytestmark = pytest.mark.usefixtures("in_a_hurry")


@pytest.fixture
def beside(store: Store) -> Iterator[ChangeStream]:
    """A stream, for which the store has a hub."""
    with store["orders"].watch() as stream:
        yield stream


def is_shared(stream: ChangeStream) -> bool:
    consumer = stream._consumer
    return consumer is not None and consumer._owned is not None and consumer._share.is_feeding


def wait_until_shared(*streams: ChangeStream) -> None:
    wait_until(lambda: all(is_shared(stream) and stream._consumer._owned.is_reading is False for stream in streams))  # type: ignore[union-attr]


def walsenders(owner: psycopg.Connection) -> int:
    ((count,),) = owner.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = current_database()"
    ).fetchall()
    return int(count)


def end_hubs(owner: psycopg.Connection) -> None:
    owner.execute(
        r"SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name LIKE 'pgdoch\_%'"
    )


def is_stored(store: Store, owner: psycopg.Connection, event: ChangeEvent) -> bool:
    """Whether the acknowledgement of an event is in the catalog, and the slot was advanced to its transaction."""
    return status(store).place == event.resume_token and confirmed(owner) >= event.resume_token.lsn


def _advance(owner: psycopg.Connection) -> bool:
    """Advance the slot to the end of the WAL; return whether the consumer did not hold it just then."""
    try:
        owner.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", [slot(owner)])
    except psycopg.errors.ObjectInUse:
        return False
    return True


def _is_made_again(owner: psycopg.Connection, event: ChangeEvent) -> bool:
    """Whether there is a slot that still has an event."""
    query = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s"
    return any(confirmed <= event.resume_token.lsn for (confirmed,) in owner.execute(query, [slot(owner)]))


def test_consumers_and_streams_of_a_store_share_one_walsender(store: Store, owner: psycopg.Connection) -> None:
    names = ["one", "two", "three"]
    streams = [store["orders"].watch(consumer=name) for name in names]
    wait_until_shared(*streams)
    wait_until(lambda: walsenders(owner) == 1)
    insert(store, *range(20))
    for stream in streams:
        assert ids(take(stream, 20)) == list(range(20))
        assert stream.stats().mode == "live"
        stream.close()
    with store["orders"].watch(consumer="two") as stream:
        insert(store, 20)
        assert ids(take(stream, 2)) == [19, 20]


def test_a_consumer_that_is_alone_reads_its_own_slot(store: Store, owner: psycopg.Connection) -> None:
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 1)
        assert ids(take(stream, 1)) == [1]
        assert not is_shared(stream)
        assert stream._consumer is not None
        assert not stream._consumer._share._hub.is_started


def test_a_slot_that_the_server_invalidates_when_idle_keeps_its_reader(
    store: Store, owner: psycopg.Connection, beside: ChangeStream
) -> None:
    if not owner.execute("SELECT name FROM pg_settings WHERE name = 'idle_replication_slot_timeout'").fetchone():
        pytest.skip("PostgreSQL 18 has the setting idle_replication_slot_timeout")
    with store["orders"].watch(consumer=NAME) as stream:
        wait_until_shared(stream)
        try:
            owner.execute("ALTER SYSTEM SET idle_replication_slot_timeout = '1h'")
            owner.execute("SELECT pg_reload_conf()")
            wait_until(lambda: not is_shared(stream))
            insert(store, 1)
            assert ids(take(stream, 1)) == [1]
        finally:
            owner.execute("ALTER SYSTEM RESET idle_replication_slot_timeout")
            owner.execute("SELECT pg_reload_conf()")
        wait_until(lambda: walsenders(owner) == 2)


def test_nothing_beyond_what_was_acknowledged_is_confirmed_while_the_hub_feeds(
    store: Store, owner: psycopg.Connection, beside: ChangeStream
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        wait_until_shared(stream)
        for number in range(0, 6, 2):
            insert(store, number, number + 1)
            first, second = take(stream, 2)
            stream.ack(first)
            wait_until(partial(is_stored, store, owner, first))
            assert confirmed(owner) <= second.resume_token.lsn
            stream.ack(second)
        assert is_shared(stream)


def test_a_quiet_shared_consumer_pins_no_wal(
    store: Store, owner: psycopg.Connection, beside: ChangeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.owned_slot._IDLE_SAVE_BYTES", 1000)
    with store["audit"].watch(consumer=NAME) as stream:
        wait_until_shared(stream)
        insert(store, *range(30))
        ((end,),) = owner.execute("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchall()
        wait_until(lambda: confirmed(owner) >= end - 1000)
        assert is_shared(stream)


def test_what_was_acknowledged_before_a_crash_is_not_repeated(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    with Client(dsn, NAME, beside=True) as client:
        assert client.ask("wait_until_shared") == "done"
        before = confirmed(owner)
        insert(store, 1, 2, 3)
        assert [client.ask("next") for _ in range(2)] == ["1", "2"]
        assert client.ask("ack") == "done"
        place = status(store).place
        wait_until(lambda: status(store).place != place)
        client.kill()
        assert confirmed(owner) == before
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [3]


def test_a_standby_takes_over_from_an_owner_that_the_hub_feeds(
    store: Store, owner: psycopg.Connection, dsn: str, beside: ChangeStream
) -> None:
    with Store(dsn) as other, store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        wait_until_shared(stream)
        insert(store, 1, 2)
        first, second = take(stream, 2)
        effect(store, stream, first)
        with other["orders"].watch(consumer=NAME, auto_ack=False) as standby:
            end_ownership(owner, store)
            (again,) = take(standby, 1)
            assert ids([again]) == [2]
            with pytest.raises(ConsumerLost):
                effect(store, stream, second)
            effect(other, standby, again)
            insert(store, 3)
            with pytest.raises(ConsumerLost):
                stream.next(timeout=PATIENCE_S)
            assert ids(take(standby, 1)) == [3]
    assert store["audit"].count() == 2


@pytest.mark.parametrize("woken", ["next", "checkpoint"])
def test_a_paused_owner_that_the_hub_feeds_can_do_nothing(
    dsn: str, store: Store, owner: psycopg.Connection, woken: str
) -> None:
    with Client(dsn, NAME, beside=True) as client:
        assert client.ask("wait_until_shared") == "done"
        insert(store, 1, 2)
        assert client.ask("next") == "1"
        with store["orders"].watch(consumer=NAME, auto_ack=False) as standby:
            client.pause()
            end_ownership(owner, store)
            assert ids(take(standby, 2)) == [1, 2]
            insert(store, 3)
            client.wake()
            answers = [client.ask(woken) for _ in range(3)]
            assert "ConsumerLost" in answers
            assert ids(take(standby, 1)) == [3]
    assert store["audit"].count() == 0


def test_the_hub_feeds_no_consumer_that_has_long_not_shown_that_it_is_owned(
    store: Store, owner: psycopg.Connection, beside: ChangeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 1)
    with store["orders"].watch(consumer=NAME) as stream, store["orders"].watch(consumer=NAME) as standby:
        wait_until_shared(stream)
        silence(stream, monkeypatch)
        wait_until(lambda: standby._consumer is not None and standby._consumer.claim is not None)
        insert(store, 1)
        assert ids(take(standby, 1)) == [1]
        with pytest.raises(ConsumerLost):
            stream.next(timeout=PATIENCE_S)


def test_a_former_owner_delivers_nothing_that_comes_after_it_knows(
    store: Store, owner: psycopg.Connection, beside: ChangeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store["orders"].watch(consumer=NAME) as stream:
        wait_until_shared(stream)
        consumer = stream._consumer
        assert consumer is not None
        assert consumer._owned is not None
        insert(store, 1)
        assert ids(take(beside, 1)) == [1]
        cut = consumer._mailbox.cut

        def cut_before_a_change(error: BaseException) -> None:
            cut(error)
            insert(store, 2)
            assert ids(take(beside, 1)) == [2]

        monkeypatch.setattr(consumer._mailbox, "cut", cut_before_a_change)
        monkeypatch.setattr(consumer._owned, "heartbeat", mock.Mock(side_effect=ConsumerLost("taken over")))
        consumer._thread.join(PATIENCE_S)
        with pytest.raises(ConsumerLost):
            stream.next(timeout=PATIENCE_S)


def test_a_former_owner_does_not_advance_the_slot(
    store: Store, owner: psycopg.Connection, beside: ChangeStream
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        wait_until_shared(stream)
        consumer = stream._consumer
        assert consumer is not None
        assert consumer.claim is not None
        former = Ownership(consumer._source, NAME, consumer.claim._replace(epoch=consumer.claim.epoch - 1))
        insert(store, 1)
        ((end,),) = owner.execute("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchall()
        assert former.advance(end)
        former.close()
        assert confirmed(owner) < end
        take(stream, 1)
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [1]


def test_a_consumer_goes_on_when_the_hub_loses_its_connection(
    store: Store, owner: psycopg.Connection, beside: ChangeStream
) -> None:
    with store["orders"].watch(consumer=NAME) as stream:
        for number in range(0, 40, 10):
            wait_until_shared(stream)
            insert(store, *range(number, number + 5))
            end_hubs(owner)
            insert(store, *range(number + 5, number + 10))
            assert ids(take(stream, 10)) == list(range(number, number + 10))
            assert ids(take(beside, 10)) == list(range(number, number + 10))
        assert stream.stats().recreated == 0


def test_a_consumer_outlives_the_hub(store: Store, beside: ChangeStream, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Subscriptions, burst: Burst) -> list[Subscription]:
        if burst.changes:
            raise RuntimeError("a bug")
        return dispatch(self, burst)

    dispatch = Subscriptions.dispatch
    with store["orders"].watch(consumer=NAME) as stream:
        wait_until_shared(stream)
        with monkeypatch.context() as context:
            context.setattr(Subscriptions, "dispatch", fail)
            insert(store, 1, 2)
            with pytest.raises(StreamError, match="the hub failed"):
                beside.next(timeout=PATIENCE_S)
            assert ids(take(stream, 2)) == [1, 2]
        with store["orders"].watch():
            wait_until_shared(stream)
            insert(store, 3)
            assert ids(take(stream, 1)) == [3]


@pytest.mark.parametrize("fault", ["dropped", "advanced"])
def test_a_slot_that_changes_while_the_hub_feeds_is_made_again(
    store: Store, owner: psycopg.Connection, beside: ChangeStream, fault: str
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        wait_until_shared(stream)
        insert(store, 1, 2)
        events = take(stream, 2)
        stream.ack(events[0])
        if fault == "dropped":
            drop_slot(owner)
        else:
            insert(store, 3)
            wait_until(partial(_advance, owner))
            assert ids(take(stream, 1)) == [3]
        wait_until(partial(_is_made_again, owner, events[1]))
        wait_until_shared(stream)
        assert stream.stats().recreated == 0
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [2]


def test_a_full_mailbox_goes_on_from_the_slot(store: Store, owner: psycopg.Connection, beside: ChangeStream) -> None:
    with store["orders"].watch(consumer=NAME, buffer_size=4) as stream:
        for number in range(0, 60, 20):
            wait_until_shared(stream)
            insert(store, *range(number, number + 20))
            wait_until(lambda: not is_shared(stream))
            assert ids(take(stream, 20)) == list(range(number, number + 20))
            wait_until(lambda: stream.try_next() is None and stream.stats().mode == "live")
        assert ids(take(beside, 60)) == list(range(60))


def test_a_shared_consumer_survives_the_server(
    cluster: LocalServer, store: Store, owner: psycopg.Connection, beside: ChangeStream
) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        for number in range(0, 20, 10):
            wait_until_shared(stream)
            insert(store, *range(number, number + 10))
            events = take(stream, 4)
            for event in events:
                effect(store, stream, event)
            cluster.restart("immediate" if number else "fast")
            events += take(stream, 6)
            for event in events[4:]:
                effect(store, stream, event)
            assert ids(events) == list(range(number, number + 10))
    assert store["audit"].count() == 20
    with store["orders"].watch(consumer=NAME) as stream:
        insert(store, 20)
        assert ids(take(stream, 1)) == [20]


def test_filters_ddl_and_the_end_of_a_collection_reach_a_shared_consumer(store: Store, beside: ChangeStream) -> None:
    wanted: dict[str, Any] = {"full_document.data.n": {"$gt": 2}}
    with store["orders"].watch(where=wanted, consumer=NAME) as stream:
        wait_until_shared(stream)
        for number in range(5):
            store["orders"].insert(str(number), {"n": number})
        assert ids(take(stream, 2)) == [3, 4]
        assert is_shared(stream)
    with store["orders"].watch(consumer="all") as stream:
        wait_until_shared(stream)
        store.drop_collection("orders")
        assert [event.event_type for event in take(stream, 2)] == ["drop", "invalidate"]
    store.create_collection("orders")


def test_a_change_that_can_not_be_read_stops_only_the_consumer_that_wants_it(
    store: Store, owner: psycopg.Connection
) -> None:
    make_poisonous(owner, "files")
    with store["orders"].watch(consumer="orders") as orders, store.watch(consumer="every") as every:
        for number in range(3):
            wait_until_shared(orders, *[every][number:])
            with owner.transaction():
                insert(store, 10 * number)
                owner.execute("INSERT INTO docs.orders (id, data) VALUES (%s, '{}')", [f"{10 * number + 1}"])
                insert_poison(owner, "files", str(number))
                owner.execute("INSERT INTO docs.orders (id, data) VALUES (%s, '{}')", [f"{10 * number + 2}"])
            insert(store, 10 * number + 3)
            assert ids(take(orders, 4)) == list(range(10 * number, 10 * number + 4))
        assert ids(take(every, 2)) == [0, 1]
        with pytest.raises(UnreadableChange):
            every.next(timeout=PATIENCE_S)
