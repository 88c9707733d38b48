# Written by .ci/twins.py from tests/integration/_async/test_consumer.py: change that file, and run it.
"""Durable consumers: which events they deliver again, and to which process."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import (
    CollectionNotFound,
    ConsumerBusy,
    ConsumerLost,
    DatabaseError,
    InvalidName,
    NotAConsumer,
    SerializationFailure,
    StreamClosed,
)
from tests.integration._sync.streams import brief, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from pgdoc import ChangeStream, ChangeEvent, ConsumerStatus

_numbers = itertools.count(1)


@pytest.fixture
def name(shared_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a consumer; all consumers are dropped at the end."""
    monkeypatch.setattr("pgdoc.consumers.consumer._STANDBY_S", 0.05)
    yield f"billing_{next(_numbers)}"
    with pgdoc.Store(shared_dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)
        assert store.consumers() == []


def ids(events: list[ChangeEvent]) -> list[str | None]:
    return [event.document_id for event in events]


def insert(store: Store, *document_ids: str, collection: str = "orders") -> None:
    """Insert documents, each in its own transaction."""
    for document_id in document_ids:
        store[collection].insert(document_id, {})


def again(store: Store, name: str, end: str) -> list[str | None]:
    """Insert document `end`, open the consumer, and return the document ids up to it, without acknowledging."""
    with store["orders"].watch(consumer=name, auto_ack=False) as stream:
        insert(store, end)
        events = take(stream)
        while events[-1].document_id != end:
            events += take(stream)
    return ids(events)


def status_of(store: Store, name: str) -> ConsumerStatus:
    (status,) = [status for status in store.consumers() if status.name == name]
    return status


def until_mode(stream: ChangeStream, mode: str) -> None:
    """Wait until a stream is in a mode; no event may arrive."""
    for _ in range(1000):
        if stream.stats().mode == mode:
            return
        assert stream.next(timeout=0.02) is None
    raise AssertionError(stream.stats())


def test_a_new_consumer_starts_with_the_call(shared_dsn: str, schema: str, sql: psycopg.Connection, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("orders")
        sql.execute("SET synchronous_commit = off")
        sql.execute("INSERT INTO orders (id, data) VALUES ('before', '{}')")
        with store["orders"].watch(consumer=name) as stream:
            sql.execute("INSERT INTO orders (id, data) VALUES ('after', '{}')")
            assert brief(take(stream)) == [("insert", "orders", "after")]


def test_a_new_consumer_starts_after_the_given_token(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch() as stream:
            start = stream.resume_token
            insert(store, "1", "2", "3")
            one, *_ = take(stream, 3)
        places: list[tuple[pgdoc.ResumeToken | pgdoc.Lsn | str, list[str]]] = [
            (start, ["1", "2", "3"]),
            (str(one.resume_token), ["2", "3"]),
            (one.resume_token.lsn, ["1", "2", "3"]),
        ]
        for number, (place, expected) in enumerate(places):
            rest = expected + [f"known {earlier}" for earlier in range(number)]
            with store["orders"].watch(consumer=f"{name}_{number}", resume_after=place) as stream:
                assert ids(take(stream, len(rest))) == rest
                stream.ack()
            with store["orders"].watch(consumer=f"{name}_{number}", resume_after=start) as stream:
                insert(store, f"known {number}")
                assert ids(take(stream)) == [f"known {number}"]


def test_requesting_the_next_event_acknowledges_the_previous_one(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "1", "2", "3")
            assert ids(take(stream, 3)) == ["1", "2", "3"]
        with store["orders"].watch(consumer=name) as stream:
            assert ids(take(stream)) == ["3"]
            assert stream.try_next() is None
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "4", "5")
            for event in stream:
                if event.document_id == "5":
                    break
        assert again(store, name, "6") == ["5", "6"]


def test_acknowledging_an_event_covers_all_before_it(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name, auto_ack=False) as stream:
            insert(store, "1", "2", "3", "4")
            one, two, three, four = take(stream, 4)
            stream.ack(three)
            stream.ack(one)
        assert again(store, name, "5") == ["4", "5"]
        with store["orders"].watch(consumer=name, auto_ack=False) as stream:
            with pytest.raises(ValueError, match="was not delivered by this stream"):
                stream.ack(four)
            take(stream)
            stream.ack(four)
            stream.ack(two)
            take(stream)
            stream.ack()
        assert again(store, name, "6") == ["6"]


def test_unacknowledged_events_come_again_in_order(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    """The events also come again from the middle of a transaction."""
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name, auto_ack=False) as stream:
            sql.execute("INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(1, 9) n")
            with store.transaction(metadata={"user": "alice"}) as tx:
                tx["orders"].insert("10", {})
                tx["orders"].delete("1")
            events = [event.to_dict() for event in take(stream, 11)]
        for number in range(len(events)):
            with store["orders"].watch(consumer=name, auto_ack=False) as stream:
                rest = take(stream, len(events) - number)
                stream.ack(rest[0])
            assert [event.to_dict() for event in rest] == events[number:]


def test_one_process_has_a_consumer(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store, Store(shared_dsn, schema=schema) as other:
        with store["orders"].watch(consumer=name, auto_ack=False) as stream:
            owner_pid = (status_of(other, name)).owner_pid
            with pytest.raises(ConsumerBusy, match=f"open elsewhere .its session has pid {owner_pid}") as raised:
                with other["orders"].watch(consumer=name, wait=False):
                    pass
            assert raised.value.owner_pid == owner_pid
            with pytest.raises(ConsumerBusy, match=f"pid {owner_pid}.: close it first"):
                other.drop_consumer(name)
            standby = other["orders"].watch(consumer=name, auto_ack=False)
            insert(store, "1", "2")
            one, _ = take(stream, 2)
            stream.ack(one)
            assert standby.next(timeout=0.2) is None
            assert standby.stats().mode == "standby"
        assert ids(take(standby)) == ["2"]
        until_mode(standby, "live")
        insert(store, "3")
        assert ids(take(standby)) == ["3"]
        standby.close()
        with store["orders"].watch(consumer=name, wait=False) as stream:
            assert ids(take(stream, 2)) == ["2", "3"]


def test_a_closed_consumer_is_free_at_once(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        for _ in range(10):
            with store["orders"].watch(consumer=name, wait=False):
                pass
        assert store.drop_consumer(name)


def test_streams_without_a_consumer_acknowledge_nothing(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        insert(store, "1")
        (event,) = take(stream)
        with pytest.raises(NotAConsumer, match="ack needs a consumer"):
            stream.ack(event)
        with pytest.raises(NotAConsumer, match="checkpoint needs a consumer"):
            with store.transaction() as tx:
                stream.checkpoint(event, tx)


def test_invalid_arguments_of_a_consumer_are_refused(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store, Store(shared_dsn, schema="elsewhere") as other:
        for wrong in ("", "Billing", "a-b", "a" * 41, "ö", 7):
            with pytest.raises(InvalidName):
                with store.watch(consumer=wrong):  # type: ignore[arg-type]
                    pass
        with pytest.raises(InvalidName):
            store.drop_consumer("a-b")
        with pytest.raises(ValueError, match="on_lost must be 'raise' or 'recreate', got 'ignore'"):
            with store.watch(consumer=name, on_lost="ignore"):
                pass
        with store.watch(consumer=name):
            pass
        with pytest.raises(ConsumerLost, match=f'reads the schema "{schema}", not "elsewhere": use another name'):
            with other.watch(consumer=name):
                pass


def audit(
    store: Store,
    stream: ChangeStream,
    event: ChangeEvent,
    isolation: str | None = None,
    *,
    meanwhile: Callable[[], object] = lambda: None,
    fails: bool = False,
) -> None:
    with store.transaction(isolation=isolation) as tx:
        tx["audit"].insert(pgdoc.new_id(), {"of": event.document_id})
        meanwhile()
        stream.checkpoint(event, tx)
        if fails:
            raise ZeroDivisionError


def audited(store: Store) -> list[str]:
    return [document["of"] for document in store["audit"].find(sort="of")]


def test_an_effect_and_its_place_are_one(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("audit")
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "1", "2", "3", "4")
            one, two, three, four = take(stream, 4)
            with pytest.raises(ZeroDivisionError):
                audit(store, stream, four, fails=True)
            audit(store, stream, one)
            with pytest.raises(
                ConsumerLost, match=r"has a checkpoint at .* already, and the event at .* is not beyond it"
            ):
                audit(store, stream, one)
            with store.transaction() as tx:
                tx["audit"].insert("y", {"of": "3"})
                stream.checkpoint(two, tx)
                stream.checkpoint(three, tx)
        assert audited(store) == ["1", "3"]
        with store["orders"].watch(consumer=name) as stream:
            assert ids(take(stream)) == ["4"]


def test_auto_ack_stops_after_the_first_checkpoint(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("audit")
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "1", "2", "3")
            (one,) = take(stream)
            audit(store, stream, one)
            take(stream, 2)
            assert stream.try_next() is None
        assert again(store, name, "4") == ["2", "3", "4"]


@pytest.mark.parametrize("isolation", [None, "repeatable read", "serializable"])
def test_effects_happen_once_however_often_the_process_begins_again(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str, isolation: str | None
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("audit")
        with store["orders"].watch(consumer=name):
            sql.execute("INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(1, 3) n")
            sql.execute("INSERT INTO orders (id, data) SELECT n::text, '{}' FROM generate_series(4, 9) n")
        for count in (2, 3, 0, 4):
            with store["orders"].watch(consumer=name) as stream:
                for event in take(stream, count):
                    audit(store, stream, event, isolation)
        assert audited(store) == [str(number) for number in range(1, 10)]


def test_a_checkpoint_overrides_the_position_of_the_slot(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        stream = store["orders"].watch(consumer=name, auto_ack=False)
        insert(store, "1", "2", "3")
        *_, two, _ = take(stream, 3)
        stream.close()
        place = two.resume_token.position
        sql.execute("UPDATE pgdoc.consumers SET place = %s WHERE name = %s", [list(place), name])
        assert again(store, name, "4") == ["3", "4"]


def test_a_checkpoint_in_a_transaction_with_an_older_snapshot_asks_for_a_retry(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    def hear_of_it() -> None:
        sql.execute("UPDATE pgdoc.consumers SET timeline = timeline WHERE name = %s", [name])

    def take_over() -> None:
        sql.execute("UPDATE pgdoc.consumers SET epoch = epoch + 1, holder = gen_random_uuid() WHERE name = %s", [name])

    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("audit")
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "1", "2")
            one, two = take(stream, 2)
            with pytest.raises(SerializationFailure, match="again"):
                audit(store, stream, one, "repeatable read", meanwhile=hear_of_it)
            audit(store, stream, one, "repeatable read")
            with pytest.raises(SerializationFailure, match="again"):
                audit(store, stream, two, "repeatable read", meanwhile=take_over)
            for isolation in (None, "repeatable read"):
                with pytest.raises(ConsumerLost, match="taken over by another process, or dropped"):
                    audit(store, stream, two, isolation)
        assert audited(store) == ["1"]


def test_a_checkpoint_that_a_trigger_drops_is_an_error(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("audit")
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "1")
            (one,) = take(stream)
            body = "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
            sql.execute(f"CREATE FUNCTION {schema}.drop_row() RETURNS trigger {body}".encode())
            sql.execute(
                f"CREATE TRIGGER drops BEFORE UPDATE ON pgdoc.consumers FOR EACH ROW WHEN (NEW.name = '{name}')"
                f" EXECUTE FUNCTION {schema}.drop_row()".encode()
            )
            try:
                with pytest.raises(DatabaseError, match="was not stored: a trigger or a row policy"):
                    audit(store, stream, one)
            finally:
                sql.execute("DROP TRIGGER drops ON pgdoc.consumers")
            audit(store, stream, one)
        assert audited(store) == ["1"]


def test_consumers_are_listed_with_their_status(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        assert store.consumers() == []
        with store["orders"].watch(consumer=name, auto_ack=False) as stream:
            insert(store, "1", "2")
            one, two = take(stream, 2)
            stream.ack(one)
            open_one = status_of(store, name)
            assert (open_one.name, open_one.schema, open_one.wal_status) == (name, schema, "reserved")
            assert open_one.owner_pid is not None
            assert open_one.lag_bytes is not None
            assert open_one.lag_bytes > 0
            assert open_one.retained_bytes is not None
            assert open_one.retained_bytes > 0
            assert open_one.place < one.resume_token
        closed = status_of(store, name)
        assert closed.owner_pid is None
        assert closed.place == one.resume_token < two.resume_token
        assert closed.created_at == open_one.created_at < one.timestamp
        assert closed.lag.total_seconds() > 0


def test_a_dropped_consumer_leaves_nothing_behind(
    shared_dsn: str, schema: str, sql: psycopg.Connection, name: str
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name, auto_ack=False) as stream:
            insert(store, "1")
            take(stream)
        assert store.drop_consumer(name)
        assert not store.drop_consumer(name)
        assert store.consumers() == []
        slots = "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE %s"
        assert sql.execute(slots, [f"pgdoc\\_%\\_{name}"]).fetchall() == []
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "2")
            assert ids(take(stream)) == ["2"]


def test_consumers_and_streams_do_not_affect_each_other(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store.create_collection("users")
        with (
            store["orders"].watch(consumer=f"{name}_a", buffer_size=1) as one,
            store.watch("orders", "users", consumer=f"{name}_b") as other,
            store.watch(consumer=f"{name}_c") as everything,
            store["orders"].watch() as stream,
        ):
            insert(store, "1", "2")
            insert(store, "u", collection="users")
            insert(store, "3")
            insert(store, "s", collection="stock")
            assert ids(take(stream, 3)) == ["1", "2", "3"]
            assert ids(take(other, 4)) == ["1", "2", "u", "3"]
            assert ids(take(one, 2)) == ["1", "2"]
            assert brief(take(everything, 6))[4:] == [("create", "stock", None), ("insert", "stock", "s")]
            other.close()
            assert ids(take(one)) == ["3"]
        with store.watch(consumer=f"{name}_c") as everything:
            assert ids(take(everything)) == ["s"]


def kinds_to_the_end(stream: ChangeStream) -> list[str]:
    return [str(event.event_type) for event in stream]


def test_a_consumer_outlives_its_collection(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "1")
            store.drop_collection("orders")
            assert kinds_to_the_end(stream) == ["insert", "drop", "invalidate"]
            assert stream.closed
            with pytest.raises(StreamClosed):
                stream.next()
        with store["orders"].watch(consumer=name) as stream:
            insert(store, "2")
            events = take(stream, 2)
        assert brief(events) == [("create", "orders", None), ("insert", "orders", "2")]


def test_a_consumer_still_receives_the_invalidate_of_a_collection_dropped_while_it_was_closed(
    shared_dsn: str, schema: str, name: str
) -> None:
    """It also arrives with auto_create=False, and acknowledging the drop does not acknowledge the invalidate."""
    with (
        Store(shared_dsn, schema=schema) as store,
        Store(shared_dsn, schema=schema, auto_create=False) as other,
    ):
        with store["orders"].watch(consumer=name):
            insert(store, "1")
        store.drop_collection("orders")
        with other["orders"].watch(consumer=name, auto_ack=False) as stream:
            _, drop = take(stream, 2)
            stream.ack(drop)
        for _ in range(2):
            with other["orders"].watch(consumer=name, auto_ack=False) as stream:
                assert (kinds_to_the_end(stream))[-1:] == ["invalidate"]
        with other["orders"].watch(consumer=name) as stream:
            assert (kinds_to_the_end(stream))[-1:] == ["invalidate"]
        with pytest.raises(CollectionNotFound):
            with other["users"].watch(consumer=f"{name}_users"):
                pass


def test_a_store_that_closes_ends_its_consumers(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        stream = store["orders"].watch(consumer=name)
        standby = store["orders"].watch(consumer=name)
        store.close()
        for each in (stream, standby):
            assert each.closed
            assert each.stats().mode == "closed"
            with pytest.raises(StreamClosed):
                each.next()


def test_stats_and_status_show_the_lag_of_a_consumer(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        stream = store["orders"].watch(consumer=name, buffer_size=2)
        until_mode(stream, "live")
        before = stream.resume_token
        assert (stream.stats().delivered, stream.stats().buffered, stream.stats().recreated) == (0, 0, 0)
        insert(store, "u", collection="users")
        while stream.resume_token <= before:
            assert stream.next(timeout=0.02) is None
        insert(store, "1", "2", "3", "4")
        assert ids(take(stream)) == ["1"]
        assert stream.stats().delivered == 1
        assert ids(take(stream, 3)) == ["2", "3", "4"]
        stream.close()
        assert (stream.stats().mode, stream.stats().delivered) == ("closed", 4)
