# Written by .ci/twins.py from tests/integration/_async/test_publishing.py: change that file, and run it.
"""Events of the application's own: in order with the changes of their transaction, and nothing stays."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import Store, Worker, EventType, RawJson
from pgdoc.errors import DatabaseError, DocumentTooLarge, InvalidDocument, InvalidName, TransactionClosed
from pgdoc.model.sizes import DEFAULT_MAX_SIZE
from tests.integration._sync.streams import brief, take
from tests.integration._sync.workers import fresh_name, opened, running, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import Transaction, ChangeEvent

_numbers = itertools.count(1)


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses: a database has one table for all."""
    return f"test-{next(_numbers)}"


@pytest.fixture
def rows(shared_dsn: str) -> Iterator[None]:
    yield
    with psycopg.connect(shared_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pgdoc.messages").fetchone() == (0,)


pytestmark = pytest.mark.usefixtures("rows")


def test_an_event_comes_in_order_with_the_changes_of_its_transaction(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        with store.watch("orders", topics=[f"{topic}.*"]) as stream:
            with store.transaction(metadata={"user": "alice"}) as tx:
                tx.publish(f"{topic}.first", {"n": 1}, key="o-1")
                tx["orders"].insert("o-1", {})
                tx.publish(f"{topic}.second", [1, None])
                tx["orders"].delete("o-1")
                tx.publish(f"{topic}.third", "text", key="o-2")
            events = take(stream, 5)
        lsn = tx.lsn()
    assert brief(events) == [
        ("message", f"topic:{topic}.first", "o-1"),
        ("insert", "orders", "o-1"),
        ("message", f"topic:{topic}.second", None),
        ("delete", "orders", "o-1"),
        ("message", f"topic:{topic}.third", "o-2"),
    ]
    assert [event.payload for event in events] == [{"n": 1}, None, [1, None], None, "text"]
    assert [event.topic for event in events[::2]] == [f"{topic}.first", f"{topic}.second", f"{topic}.third"]
    assert {event.transaction_id for event in events} == {events[0].transaction_id}
    assert all(event.metadata == {"user": "alice"} for event in events)
    assert all(event.resume_token.position.commit_lsn < lsn for event in events)


def test_a_stream_gets_its_topics_and_only_these(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with (
            store.watch(topics=[topic]) as one,
            store.watch(topics=[f"{topic}.*"]) as below,
            store.watch("*", topics=[topic, f"{topic}.a"]) as mixed,
            store.watch() as documents,
        ):
            for each in ("", ".a", ".a.b", "x"):
                store.publish(topic + each, {})
            store["orders"].insert("o-1", {})
            store.publish(topic, "end")
            store.publish(f"{topic}.end", "end")
            store["orders"].insert("end", {})
            assert [event.payload for event in take(one, 2)] == [{}, "end"]
            assert [event.topic for event in take(below, 3)] == [f"{topic}.a", f"{topic}.a.b", f"{topic}.end"]
            assert [event.topic for event in take(mixed, 5)] == [topic, f"{topic}.a", None, topic, None]
            assert [event.document_id for event in take(documents, 2)] == ["o-1", "end"]


def test_what_is_rolled_back_was_never_published(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store, store.watch(topics=[topic]) as stream:
        with store.transaction() as tx:
            tx.publish(topic, "rolled back")
            roll_back()
        with store.transaction() as tx:
            tx.publish(topic, "before")
            with tx.connection.transaction() as block:
                tx.publish(topic, "in a savepoint")
                roll_back(block)
            tx.publish(topic, "after")
        assert [event.payload for event in take(stream, 2)] == ["before", "after"]


def test_a_stream_resumes_at_an_event_and_reads_what_it_missed(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        with store.watch(topics=[topic]) as stream:
            with store.transaction() as tx:
                for number in range(6):
                    tx.publish(topic, number)
            events = take(stream, 6)
        assert [event.payload for event in events] == [0, 1, 2, 3, 4, 5]
        store.publish(topic, 6)
        with store.watch(topics=[topic], resume_after=events[2].resume_token) as again:
            assert [event.payload for event in take(again, 4)] == [3, 4, 5, 6]
        copy = pgdoc.ChangeEvent.from_json(events[5].to_json())
        assert copy == events[5]
        with store.watch(topics=[topic], resume_after=copy.resume_token) as again:
            assert [event.payload for event in take(again, 1)] == [6]


def test_a_filter_can_name_the_payload(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        where = {"payload.total": {"$gte": 0.3}, "document_id": {"$ne": "no"}}
        with store.watch(topics=[topic], where=where) as stream:
            store.publish(topic, {"total": 0.2})
            store.publish(topic, {"total": 1}, key="no")
            store.publish(topic, {"total": Decimal("0.30000000000000001")})
            store.publish(topic, None)
            store.publish(topic, {"total": 5}, key="yes")
            events = take(stream, 2)
    assert [event.document_id for event in events] == [None, "yes"]
    assert events[0].to_json().endswith(b'"payload":{"total": 0.30000000000000001}}')


def test_a_payload_is_any_value_that_the_store_encodes(own_schema: dict[str, Any], topic: str) -> None:
    values = ["", 0, -1.5, True, None, [], {}, {"a": [{"b": None}]}, 2**70, Decimal("1.10"), RawJson('{"n": 1.20}')]
    options = {**own_schema, "encoder": lambda value: list(value) if isinstance(value, range) else value}
    with Store(**options, decimals=True) as store, store.watch(topics=[topic]) as stream:
        for value in [*values, range(3)]:
            store.publish(topic, value)
        found = [event.payload for event in take(stream, len(values) + 1)]
    assert found == [*values[:10], {"n": Decimal("1.20")}, [0, 1, 2]]
    assert str(found[9]) == "1.10"


def test_what_is_not_a_topic_a_key_or_json_is_refused(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidName, match="is not a valid topic"):
            store.publish("no topic", {})
        for wrong in ("", "\0", "k" * 1025):
            with pytest.raises(InvalidDocument, match="key") as refused:
                store.publish(topic, {}, key=wrong)
            assert refused.value.path == "key"
        with pytest.raises(InvalidDocument, match="object") as refused:
            store.publish(topic, {"a": [object()]})
        assert refused.value.path == "payload.a.0"
        with pytest.raises(InvalidDocument):
            store.publish(topic, RawJson("{"))
        with pytest.raises(ValueError, match="'\\*' stands for all"):
            store.watch("orders", "*", topics=[topic])
        tx = store.transaction()
        with pytest.raises(TransactionClosed):
            tx.publish(topic, {})


def test_a_payload_has_the_limit_of_documents(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(DocumentTooLarge, match="publish their ids") as refused:
            store.publish(topic, "x" * DEFAULT_MAX_SIZE)
        assert refused.value.size == DEFAULT_MAX_SIZE + 2
        # Shorter as it is sent than as PostgreSQL prints it.
        with pytest.raises(DocumentTooLarge, match="more JSON text"):
            store.publish(topic, ["x" * (DEFAULT_MAX_SIZE // 60_000 - 3)] * 60_000)


def test_a_large_payload_arrives_whole(own_schema: dict[str, Any], topic: str) -> None:
    large = {"text": "".join(map(str, range(300_000)))}
    with Store(**own_schema) as store, store.watch(topics=[topic]) as stream:
        store.publish(topic, large)
        store.publish(topic, "next")
        assert [event.payload for event in take(stream, 2)] == [large, "next"]


def test_sql_publishes_with_a_function_an_insert_or_a_copy(
    own_schema: dict[str, Any], sql: psycopg.Connection, topic: str
) -> None:
    with Store(**own_schema) as store, store.watch(topics=[topic]) as stream:
        with sql.transaction():
            sql.execute("""SELECT pgdoc.set_metadata('{"user": "bob"}')""")
            sql.execute("""SELECT pgdoc.publish(%s, '{"n": 1.10}', 'o-1')""", [topic])
            sql.execute("SELECT pgdoc.publish(%s, '2')", [topic])
        sql.execute(
            "INSERT INTO pgdoc.messages (topic, payload) SELECT %s, to_jsonb(n) FROM generate_series(3, 5) n", [topic]
        )
        with sql.cursor() as cursor, cursor.copy("COPY pgdoc.messages (topic, key, payload) FROM STDIN") as copy:
            for number in range(6, 9):
                copy.write_row((topic, f"k-{number}", str(number)))
        events = take(stream, 8)
    assert [event.payload for event in events] == [{"n": 1.1}, 2, 3, 4, 5, 6, 7, 8]
    assert [event.document_id for event in events[:3]] == ["o-1", None, None]
    assert [event.metadata for event in events[:3]] == [{"user": "bob"}, {"user": "bob"}, {}]
    positions = [event.resume_token.position for event in events]
    assert positions == sorted(set(positions))
    assert len({position.lsn for position in positions[5:]}) == 1  # a COPY writes one record


def test_sql_can_publish_nothing_that_is_not_valid(sql: psycopg.Connection, topic: str) -> None:
    for statement in (
        "SELECT pgdoc.publish('no topic', '{}')",
        "SELECT pgdoc.publish('a.', '{}')",
        "SELECT pgdoc.publish(E'a\\n', '{}')",
        "SELECT pgdoc.publish('a', '{}', '')",
        "SELECT pgdoc.publish(repeat('a', 201), '{}')",
        "SELECT pgdoc.publish('a', to_jsonb(repeat('a', 67108864)))",
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            sql.execute(statement.encode())
    with pytest.raises(psycopg.errors.NotNullViolation):
        sql.execute("SELECT pgdoc.publish(%s, NULL)", [topic])


def test_the_row_goes_whatever_the_session_has_set(
    own_schema: dict[str, Any], sql: psycopg.Connection, topic: str
) -> None:
    with Store(**own_schema) as store, store.watch(topics=[topic]) as stream:
        sql.execute("SET session_replication_role = replica")
        sql.execute("SELECT pgdoc.publish(%s, '1')", [topic])
        assert sql.execute("SELECT count(*) FROM pgdoc.messages").fetchone() == (0,)
        assert [event.payload for event in take(stream, 1)] == [1]


def test_a_stream_with_a_snapshot_gets_events_meanwhile(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("o-1", {})
        with store.watch("orders", topics=[topic], snapshot=True) as stream:
            store.publish(topic, 1)
            assert {event.event_type for event in take(stream, 2)} == {EventType.SNAPSHOT, EventType.MESSAGE}
        with store.watch(topics=[topic], snapshot=True) as stream:  # they have none
            store.publish(topic, 2)
            assert [event.payload for event in take(stream, 1)] == [2]


def test_a_stream_on_topics_goes_on_without_its_collections(own_schema: dict[str, Any], topic: str) -> None:
    with Store(**own_schema) as store, store.watch("orders", topics=[topic]) as stream:
        store.drop_collection("orders")
        store.publish(topic, 1)
        events = take(stream, 2)
        assert [event.event_type for event in events] == [EventType.DROP, EventType.MESSAGE]
        assert not stream.closed
        with store.watch("orders", topics=[topic], resume_after=events[0].resume_token) as again:
            assert [event.payload for event in take(again, 1)] == [1]


def test_a_consumer_keeps_its_place_among_events(shared_dsn: str, schema: str, topic: str) -> None:
    name = fresh_name()
    with opened(shared_dsn, schema) as store:
        assert store.create_consumer(name, topics=[topic])
        with store.transaction() as tx:
            for number in range(4):
                tx.publish(topic, number)
        with store.watch(topics=[topic], consumer=name, auto_ack=False) as stream:
            events = take(stream, 4)
            stream.ack(events[1])
        with store.watch(topics=[topic], consumer=name) as stream:
            assert [event.payload for event in take(stream, 2)] == [2, 3]


def test_handlers_share_a_consumer_of_collections_and_topics(shared_dsn: str, schema: str, topic: str) -> None:
    seen: dict[str, list[Any]] = {"documents": [], "messages": [], "both": []}
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on(consumer=name)
        def documents(event: ChangeEvent) -> None:
            seen["documents"].append(event.document_id)

        @worker.on(topics=[f"{topic}.*"], consumer=name, batch=3)
        def messages(tx: Transaction, events: list[ChangeEvent]) -> None:
            seen["messages"] += [event.payload for event in events]
            tx.publish(f"{topic}-done", [event.payload for event in events])

        @worker.on("orders", topics=[f"{topic}.a"], where={"metadata.user": "alice"}, consumer=name)
        def both(event: ChangeEvent) -> None:
            seen["both"].append(event.payload or event.document_id)

        worker.declare()
        with store.watch(topics=[f"{topic}-done"]) as done, running(worker):
            with store.transaction(metadata={"user": "alice"}) as tx:
                tx["orders"].insert("o-1", {})
                tx.publish(f"{topic}.a", 1)
                tx.publish(f"{topic}.b", 2)
            until(lambda: _are(seen, documents=["o-1"], messages=[1, 2], both=["o-1", 1]))
            handled: list[Any] = []
            while len(handled) < 2:  # in one batch or two
                (event,) = take(done, 1)
                handled += event.payload
            assert handled == [1, 2]


def _are(seen: dict[str, list[Any]], **expected: list[Any]) -> bool:
    return seen == expected


def test_events_of_one_key_wait_behind_a_dead_one(shared_dsn: str, schema: str, topic: str) -> None:
    seen: list[Any] = []
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on(topics=[topic], consumer=name, retries=0, on_dead="park")
        def handle(event: ChangeEvent) -> None:
            if event.payload == "poison":
                raise ValueError("poison")
            seen.append((event.document_id, event.payload))

        worker.declare()
        with running(worker):
            store.publish(topic, "poison", key="a")
            store.publish(topic, 1, key="a")
            store.publish(topic, 2, key="b")
            until(lambda: _holds(store, name, 2))
            until(lambda: _is(seen, [("b", 2)]))
        letters = store.dead_letters(consumer=name)
        assert [(each.collection, each.document_id) for each in letters] == [(f"topic:{topic}", "a")] * len(letters)
        assert letters[0].event is not None
        assert (letters[0].event.topic, letters[0].event.payload) == (topic, "poison")


def roll_back(block: Any = None) -> None:
    """Leave a block without its effects."""
    raise psycopg.Rollback(block)


def _holds(store: Store, consumer: str, count: int) -> bool:
    found = None
    with store.transaction() as tx:
        cursor = tx.connection.execute("SELECT count(*) FROM pgdoc.dead_letters WHERE consumer = %s", [consumer])
        found = cursor.fetchone()
    return found == (count,)


def _is(seen: list[Any], expected: list[Any]) -> bool:
    return seen == expected


def test_a_trigger_that_drops_the_row_is_an_error(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        owner.execute("CREATE TRIGGER no BEFORE INSERT ON pgdoc.messages FOR EACH ROW EXECUTE FUNCTION public.no()")
    with Store(dsn) as store:
        with pytest.raises(DatabaseError, match=r"a trigger of pgdoc\.messages drops the event"):
            store.publish("a", {})


def test_serializable_transactions_can_publish_at_the_same_time(
    own_schema: dict[str, Any], sql: psycopg.Connection, topic: str
) -> None:
    sql.execute("VACUUM ANALYZE pgdoc.messages")  # of a table without pages, to read all of it would be the cheapest
    with Store(**own_schema) as store, store.watch(topics=[topic]) as stream:
        one, other = (store.transaction(isolation="serializable") for _ in range(2))
        with one, other:
            for number in range(3):
                one.publish(topic, number)
                other.publish(topic, number)
        assert [event.payload for event in take(stream, 6)] == [0, 1, 2] * 2
