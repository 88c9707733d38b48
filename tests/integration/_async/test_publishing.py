"""Events of the application's own: in order with the changes of their transaction, and nothing stays."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import AsyncStore, AsyncWorker, EventType, RawJson
from pgdoc.errors import DatabaseError, DocumentTooLarge, InvalidDocument, InvalidName, TransactionClosed
from pgdoc.model.sizes import DEFAULT_MAX_SIZE
from tests.integration._async.streams import brief, take
from tests.integration._async.workers import fresh_name, opened, running, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import AsyncTransaction, ChangeEvent

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


async def test_an_event_comes_in_order_with_the_changes_of_its_transaction(
    own_schema: dict[str, Any], topic: str
) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.watch("orders", topics=[f"{topic}.*"]) as stream:
            async with store.transaction(metadata={"user": "alice"}) as tx:
                await tx.publish(f"{topic}.first", {"n": 1}, key="o-1")
                await tx["orders"].insert("o-1", {})
                await tx.publish(f"{topic}.second", [1, None])
                await tx["orders"].delete("o-1")
                await tx.publish(f"{topic}.third", "text", key="o-2")
            events = await take(stream, 5)
        lsn = await tx.lsn()
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


async def test_a_stream_gets_its_topics_and_only_these(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store:
        await store.create_collection("orders")
        async with (
            store.watch(topics=[topic]) as one,
            store.watch(topics=[f"{topic}.*"]) as below,
            store.watch("*", topics=[topic, f"{topic}.a"]) as mixed,
            store.watch() as documents,
        ):
            for each in ("", ".a", ".a.b", "x"):
                await store.publish(topic + each, {})
            await store["orders"].insert("o-1", {})
            await store.publish(topic, "end")
            await store.publish(f"{topic}.end", "end")
            await store["orders"].insert("end", {})
            assert [event.payload for event in await take(one, 2)] == [{}, "end"]
            assert [event.topic for event in await take(below, 3)] == [f"{topic}.a", f"{topic}.a.b", f"{topic}.end"]
            assert [event.topic for event in await take(mixed, 5)] == [topic, f"{topic}.a", None, topic, None]
            assert [event.document_id for event in await take(documents, 2)] == ["o-1", "end"]


async def test_what_is_rolled_back_was_never_published(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store, store.watch(topics=[topic]) as stream:
        async with store.transaction() as tx:
            await tx.publish(topic, "rolled back")
            roll_back()
        async with store.transaction() as tx:
            await tx.publish(topic, "before")
            async with tx.connection.transaction() as block:
                await tx.publish(topic, "in a savepoint")
                roll_back(block)
            await tx.publish(topic, "after")
        assert [event.payload for event in await take(stream, 2)] == ["before", "after"]


async def test_a_stream_resumes_at_an_event_and_reads_what_it_missed(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store:
        async with store.watch(topics=[topic]) as stream:
            async with store.transaction() as tx:
                for number in range(6):
                    await tx.publish(topic, number)
            events = await take(stream, 6)
        assert [event.payload for event in events] == [0, 1, 2, 3, 4, 5]
        await store.publish(topic, 6)
        async with store.watch(topics=[topic], resume_after=events[2].resume_token) as again:
            assert [event.payload for event in await take(again, 4)] == [3, 4, 5, 6]
        copy = pgdoc.ChangeEvent.from_json(events[5].to_json())
        assert copy == events[5]
        async with store.watch(topics=[topic], resume_after=copy.resume_token) as again:
            assert [event.payload for event in await take(again, 1)] == [6]


async def test_a_filter_can_name_the_payload(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store:
        where = {"payload.total": {"$gte": 0.3}, "document_id": {"$ne": "no"}}
        async with store.watch(topics=[topic], where=where) as stream:
            await store.publish(topic, {"total": 0.2})
            await store.publish(topic, {"total": 1}, key="no")
            await store.publish(topic, {"total": Decimal("0.30000000000000001")})
            await store.publish(topic, None)
            await store.publish(topic, {"total": 5}, key="yes")
            events = await take(stream, 2)
    assert [event.document_id for event in events] == [None, "yes"]
    assert events[0].to_json().endswith(b'"payload":{"total": 0.30000000000000001}}')


async def test_a_payload_is_any_value_that_the_store_encodes(own_schema: dict[str, Any], topic: str) -> None:
    values = ["", 0, -1.5, True, None, [], {}, {"a": [{"b": None}]}, 2**70, Decimal("1.10"), RawJson('{"n": 1.20}')]
    options = {**own_schema, "encoder": lambda value: list(value) if isinstance(value, range) else value}
    async with AsyncStore(**options, decimals=True) as store, store.watch(topics=[topic]) as stream:
        for value in [*values, range(3)]:
            await store.publish(topic, value)
        found = [event.payload for event in await take(stream, len(values) + 1)]
    assert found == [*values[:10], {"n": Decimal("1.20")}, [0, 1, 2]]
    assert str(found[9]) == "1.10"


async def test_what_is_not_a_topic_a_key_or_json_is_refused(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(InvalidName, match="is not a valid topic"):
            await store.publish("no topic", {})
        for wrong in ("", "\0", "k" * 1025):
            with pytest.raises(InvalidDocument, match="key") as refused:
                await store.publish(topic, {}, key=wrong)
            assert refused.value.path == "key"
        with pytest.raises(InvalidDocument, match="object") as refused:
            await store.publish(topic, {"a": [object()]})
        assert refused.value.path == "payload.a.0"
        with pytest.raises(InvalidDocument):
            await store.publish(topic, RawJson("{"))
        with pytest.raises(ValueError, match="'\\*' stands for all"):
            store.watch("orders", "*", topics=[topic])
        tx = store.transaction()
        with pytest.raises(TransactionClosed):
            await tx.publish(topic, {})


async def test_a_payload_has_the_limit_of_documents(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store:
        with pytest.raises(DocumentTooLarge, match="publish their ids") as refused:
            await store.publish(topic, "x" * DEFAULT_MAX_SIZE)
        assert refused.value.size == DEFAULT_MAX_SIZE + 2
        # Shorter as it is sent than as PostgreSQL prints it.
        with pytest.raises(DocumentTooLarge, match="more JSON text"):
            await store.publish(topic, ["x" * (DEFAULT_MAX_SIZE // 60_000 - 3)] * 60_000)


async def test_a_large_payload_arrives_whole(own_schema: dict[str, Any], topic: str) -> None:
    large = {"text": "".join(map(str, range(300_000)))}
    async with AsyncStore(**own_schema) as store, store.watch(topics=[topic]) as stream:
        await store.publish(topic, large)
        await store.publish(topic, "next")
        assert [event.payload for event in await take(stream, 2)] == [large, "next"]


async def test_sql_publishes_with_a_function_an_insert_or_a_copy(
    own_schema: dict[str, Any], sql: psycopg.Connection, topic: str
) -> None:
    async with AsyncStore(**own_schema) as store, store.watch(topics=[topic]) as stream:
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
        events = await take(stream, 8)
    assert [event.payload for event in events] == [{"n": 1.1}, 2, 3, 4, 5, 6, 7, 8]
    assert [event.document_id for event in events[:3]] == ["o-1", None, None]
    assert [event.metadata for event in events[:3]] == [{"user": "bob"}, {"user": "bob"}, {}]
    positions = [event.resume_token.position for event in events]
    assert positions == sorted(set(positions))
    assert len({position.lsn for position in positions[5:]}) == 1  # a COPY writes one record


async def test_sql_can_publish_nothing_that_is_not_valid(sql: psycopg.Connection, topic: str) -> None:
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


async def test_the_row_goes_whatever_the_session_has_set(
    own_schema: dict[str, Any], sql: psycopg.Connection, topic: str
) -> None:
    async with AsyncStore(**own_schema) as store, store.watch(topics=[topic]) as stream:
        sql.execute("SET session_replication_role = replica")
        sql.execute("SELECT pgdoc.publish(%s, '1')", [topic])
        assert sql.execute("SELECT count(*) FROM pgdoc.messages").fetchone() == (0,)
        assert [event.payload for event in await take(stream, 1)] == [1]


async def test_a_stream_with_a_snapshot_gets_events_meanwhile(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store:
        await store["orders"].insert("o-1", {})
        async with store.watch("orders", topics=[topic], snapshot=True) as stream:
            await store.publish(topic, 1)
            assert {event.event_type for event in await take(stream, 2)} == {EventType.SNAPSHOT, EventType.MESSAGE}
        async with store.watch(topics=[topic], snapshot=True) as stream:  # they have none
            await store.publish(topic, 2)
            assert [event.payload for event in await take(stream, 1)] == [2]


async def test_a_stream_on_topics_goes_on_without_its_collections(own_schema: dict[str, Any], topic: str) -> None:
    async with AsyncStore(**own_schema) as store, store.watch("orders", topics=[topic]) as stream:
        await store.drop_collection("orders")
        await store.publish(topic, 1)
        events = await take(stream, 2)
        assert [event.event_type for event in events] == [EventType.DROP, EventType.MESSAGE]
        assert not stream.closed
        async with store.watch("orders", topics=[topic], resume_after=events[0].resume_token) as again:
            assert [event.payload for event in await take(again, 1)] == [1]


async def test_a_consumer_keeps_its_place_among_events(shared_dsn: str, schema: str, topic: str) -> None:
    name = fresh_name()
    async with opened(shared_dsn, schema) as store:
        assert await store.create_consumer(name, topics=[topic])
        async with store.transaction() as tx:
            for number in range(4):
                await tx.publish(topic, number)
        async with store.watch(topics=[topic], consumer=name, auto_ack=False) as stream:
            events = await take(stream, 4)
            stream.ack(events[1])
        async with store.watch(topics=[topic], consumer=name) as stream:
            assert [event.payload for event in await take(stream, 2)] == [2, 3]


async def test_handlers_share_a_consumer_of_collections_and_topics(shared_dsn: str, schema: str, topic: str) -> None:
    seen: dict[str, list[Any]] = {"documents": [], "messages": [], "both": []}
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on(consumer=name)
        async def documents(event: ChangeEvent) -> None:
            seen["documents"].append(event.document_id)

        @worker.on(topics=[f"{topic}.*"], consumer=name, batch=3)
        async def messages(tx: AsyncTransaction, events: list[ChangeEvent]) -> None:
            seen["messages"] += [event.payload for event in events]
            await tx.publish(f"{topic}-done", [event.payload for event in events])

        @worker.on("orders", topics=[f"{topic}.a"], where={"metadata.user": "alice"}, consumer=name)
        async def both(event: ChangeEvent) -> None:
            seen["both"].append(event.payload or event.document_id)

        await worker.declare()
        async with store.watch(topics=[f"{topic}-done"]) as done, running(worker):
            async with store.transaction(metadata={"user": "alice"}) as tx:
                await tx["orders"].insert("o-1", {})
                await tx.publish(f"{topic}.a", 1)
                await tx.publish(f"{topic}.b", 2)
            await until(lambda: _are(seen, documents=["o-1"], messages=[1, 2], both=["o-1", 1]))
            handled: list[Any] = []
            while len(handled) < 2:  # in one batch or two
                (event,) = await take(done, 1)
                handled += event.payload
            assert handled == [1, 2]


async def _are(seen: dict[str, list[Any]], **expected: list[Any]) -> bool:
    return seen == expected


async def test_events_of_one_key_wait_behind_a_dead_one(shared_dsn: str, schema: str, topic: str) -> None:
    seen: list[Any] = []
    async with opened(shared_dsn, schema) as store:
        worker, name = AsyncWorker(store), fresh_name()

        @worker.on(topics=[topic], consumer=name, retries=0, on_dead="park")
        async def handle(event: ChangeEvent) -> None:
            if event.payload == "poison":
                raise ValueError("poison")
            seen.append((event.document_id, event.payload))

        await worker.declare()
        async with running(worker):
            await store.publish(topic, "poison", key="a")
            await store.publish(topic, 1, key="a")
            await store.publish(topic, 2, key="b")
            await until(lambda: _holds(store, name, 2))
            await until(lambda: _is(seen, [("b", 2)]))
        letters = await store.dead_letters(consumer=name)
        assert [(each.collection, each.document_id) for each in letters] == [(f"topic:{topic}", "a")] * len(letters)
        assert letters[0].event is not None
        assert (letters[0].event.topic, letters[0].event.payload) == (topic, "poison")


def roll_back(block: Any = None) -> None:
    """Leave a block without its effects."""
    raise psycopg.Rollback(block)


async def _holds(store: AsyncStore, consumer: str, count: int) -> bool:
    found = None
    async with store.transaction() as tx:
        cursor = await tx.connection.execute("SELECT count(*) FROM pgdoc.dead_letters WHERE consumer = %s", [consumer])
        found = await cursor.fetchone()
    return found == (count,)


async def _is(seen: list[Any], expected: list[Any]) -> bool:
    return seen == expected


async def test_a_trigger_that_drops_the_row_is_an_error(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        owner.execute("CREATE TRIGGER no BEFORE INSERT ON pgdoc.messages FOR EACH ROW EXECUTE FUNCTION public.no()")
    async with AsyncStore(dsn) as store:
        with pytest.raises(DatabaseError, match=r"a trigger of pgdoc\.messages drops the event"):
            await store.publish("a", {})


async def test_serializable_transactions_can_publish_at_the_same_time(
    own_schema: dict[str, Any], sql: psycopg.Connection, topic: str
) -> None:
    sql.execute("VACUUM ANALYZE pgdoc.messages")  # of a table without pages, to read all of it would be the cheapest
    async with AsyncStore(**own_schema) as store, store.watch(topics=[topic]) as stream:
        one, other = (store.transaction(isolation="serializable") for _ in range(2))
        async with one, other:
            for number in range(3):
                await one.publish(topic, number)
                await other.publish(topic, number)
        assert [event.payload for event in await take(stream, 6)] == [0, 1, 2] * 2
