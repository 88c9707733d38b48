"""Output plugins: which one is used, and what pgoutput needs in the publication."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import AsyncStore
from pgdoc.errors import HistoryLost, PublicationIncomplete
from tests.integration._async.streams import PATIENCE_S, take

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = ("wal2json", "pgoutput")
BY_HAND = """
CREATE TABLE docs.hand (
  id text PRIMARY KEY, data jsonb NOT NULL,
  version bigint NOT NULL DEFAULT 1, replaced_version bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE docs.hand REPLICA IDENTITY FULL
"""
_SLOT = "FROM pg_replication_slots WHERE database = current_database() AND slot_name LIKE '%%' || %s"
INSERT = "INSERT INTO docs.hand (id, data) VALUES (%s, '{}')"


@pytest.fixture
def hand(dsn: str) -> Iterator[psycopg.Connection]:
    """A plain SQL connection to a database that has the collection `orders`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pgdoc.create_collection('docs', 'orders')")
        yield connection


@contextlib.contextmanager
def role(dsn: str) -> Iterator[str]:
    """A role that may read and replicate, but owns nothing."""
    name = f"reader_of_{conninfo_to_dict(dsn)['dbname']}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN REPLICATION".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA docs TO {name}".encode())
        try:
            yield make_conninfo(dsn, user=name)
        finally:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


async def ids(dsn: str, plugin: str, after: str, count: int) -> list[str | None]:
    async with AsyncStore(dsn, plugin=plugin) as store, store.watch(resume_after=after) as stream:
        return [event.document_id for event in await take(stream, count)]


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("plugin", PLUGINS)
async def test_status_shows_the_plugin_and_the_reason(shared_dsn: str, schema: str, plugin: str) -> None:
    async with AsyncStore(shared_dsn, schema=schema, plugin=plugin) as store:
        status = await store.status()
        assert (status.plugin, status.plugin_reason, status.problem) == (plugin, "the store asks for it", None)
    async with AsyncStore(shared_dsn, schema=schema, plugin="auto") as store:
        status = await store.status()
        assert (status.plugin, status.plugin_reason) == ("wal2json", "the server has and allows wal2json")


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize(("first", "second"), [PLUGINS, PLUGINS[::-1]])
async def test_a_consumer_goes_on_with_the_plugin_of_its_slot(
    shared_dsn: str, schema: str, sql: psycopg.Connection, first: str, second: str
) -> None:
    name, places = f"keeps_{first}", []
    for number, (plugin, read) in enumerate([(first, first), (second, first), (second, second), (first, second)]):
        if number == 2:  # drop the slot; the next opening re-creates it from history
            sql.execute("SELECT pg_terminate_backend(active_pid, 5000) " + _SLOT, [name])  # it may still be active
            sql.execute("SELECT pg_drop_replication_slot(slot_name) " + _SLOT, [name])
        async with AsyncStore(shared_dsn, schema=schema, plugin=plugin) as store:
            async with store["orders"].watch(consumer=name) as stream:
                assert sql.execute("SELECT plugin " + _SLOT, [name]).fetchall() == [(read,)]
                await store["orders"].insert(str(number), {})
                (event,) = await take(stream)
                assert event.document_id == str(number)
                places.append(event.resume_token)
                stream.ack()
            if number == 3:
                assert await store.drop_consumer(name)
    assert places == sorted(set(places))


@pytest.mark.usefixtures("both_plugins")
async def test_a_table_made_by_hand_is_a_collection_from_when_it_is_registered(
    dsn: str, hand: psycopg.Connection
) -> None:
    async with AsyncStore(dsn, plugin="wal2json") as store, store.watch() as stream:
        start = str(stream.resume_token)
        hand.execute(BY_HAND)
        hand.execute(INSERT, ["before"])
        with hand.transaction():
            hand.execute(INSERT, ["before, too"])
            hand.execute("SELECT pgdoc.register('docs.hand')")
            hand.execute(INSERT, ["after"])
        hand.execute("SELECT pgdoc.unregister('docs.hand')")
        hand.execute(INSERT, ["not any more"])
        await store["orders"].insert("o-1", {})
        live = await take(stream, 4)
    assert [(str(event.event_type), event.document_id) for event in live] == [
        ("create", None),
        ("insert", "after"),
        ("drop", None),
        ("insert", "o-1"),
    ]
    for plugin in PLUGINS:
        async with AsyncStore(dsn, plugin=plugin) as store, store.watch(resume_after=start) as stream:
            assert await take(stream, 4) == live


async def test_publishing_a_table_waits_for_its_writers(dsn: str, hand: psycopg.Connection) -> None:
    hand.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")
    insert = INSERT.replace("hand", "orders")
    async with AsyncStore(dsn, plugin="pgoutput") as store:
        with psycopg.connect(dsn) as writer:
            writer.execute(insert.encode(), ["half"])
            with pytest.raises(PublicationIncomplete, match=r"lacks docs\.orders: run SELECT pgdoc\.publish\('docs'\)"):
                await store.watch()
            writer.execute(insert.encode(), ["published"])
        async with store.watch() as stream:
            hand.execute(insert.encode(), ["whole"])
            (event,) = await take(stream)
            assert event.document_id == "whole"


@pytest.mark.usefixtures("both_plugins")
async def test_a_collection_that_left_the_publication_is_read_from_when_it_is_back(
    dsn: str, hand: psycopg.Connection
) -> None:
    insert = INSERT.replace("hand", "orders").encode()
    async with AsyncStore(dsn, plugin="wal2json") as store, store.watch() as stream:
        await store.create_collection("other")
        start = str(stream.resume_token)
        async with AsyncStore(dsn, plugin="pgoutput") as other:
            for name in ("orders", "other"):
                await other.create_consumer(f"of_{name}", name)
        hand.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")
        hand.execute(insert, ["away"])
        assert [str(event.event_type) for event in await take(stream, 2)] == ["create", "insert"]
    async with AsyncStore(dsn, plugin="pgoutput") as store:
        async with store.watch() as stream:
            hand.execute(insert, ["back"])
            assert [event.document_id for event in await take(stream)] == ["back"]
        for names in ((), ("orders",), ("other", "orders")):
            with pytest.raises(HistoryLost, match='older than the publication "pgdoc"') as raised:
                await store.watch(*names, resume_after=start)
            assert raised.value.oldest_available is not None
        with pytest.raises(HistoryLost):
            await store.watch(resume_after=start, consumer="late")
        with pytest.raises(HistoryLost, match='older than the publication "pgdoc"'):
            await store.watch("orders", consumer="of_orders")
        async with (
            store.watch("other", consumer="of_other") as known,
            store.watch("other", resume_after=start, consumer="of_both") as new,
            store.watch("other", resume_after=start) as stream,
        ):
            await store["other"].insert("o-1", {})
            assert [event.document_id for event in await take(known, 1) + await take(new, 2)] == ["o-1", None, "o-1"]
            events = await take(stream, 2)
            assert [event.document_id for event in events] == [None, "o-1"]
        for name in ("of_orders", "of_other", "of_both"):
            await store.drop_consumer(name)
    assert await ids(dsn, "wal2json", start, 4) == [None, "away", "back", "o-1"]


@pytest.mark.parametrize("topics", [None, ["*"]])
async def test_a_consumer_that_comes_back_notices_what_the_publication_lacks_by_now(
    dsn: str, hand: psycopg.Connection, topics: list[str] | None
) -> None:
    async with AsyncStore(dsn, plugin="pgoutput") as store:
        async with (
            store.watch("orders", topics=topics, consumer="back") as stream,
            store.watch("other", consumer="other") as other,
        ):
            hand.execute(f"ALTER PUBLICATION pgdoc DROP TABLE {'pgdoc.messages' if topics else 'docs.orders'}".encode())
            hand.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE '%consumer%'"
            )
            with pytest.raises(PublicationIncomplete, match=r'consumer "back": the publication "pgdoc" lacks'):
                await stream.next(timeout=PATIENCE_S)
            await store["other"].insert("o-1", {})
            assert [event.document_id for event in await take(other)] == ["o-1"]
        with pytest.raises(HistoryLost):  # it may have missed something
            await store.watch("orders", topics=topics, consumer="back")
        for name in ("back", "other"):
            assert await store.drop_consumer(name)


async def test_a_table_that_is_not_registered_is_not_published(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as hand:
        hand.execute("CREATE SCHEMA docs")
        async with AsyncStore(dsn, plugin="pgoutput") as store, store.watch() as stream:
            hand.execute("CREATE TABLE docs.plain (id text)")
            hand.execute("INSERT INTO docs.plain VALUES ('1')")
            hand.execute("UPDATE docs.plain SET id = '2'")  # would fail if the table were published
            await store["orders"].insert("o-1", {})
            assert [event.collection for event in await take(stream, 2)] == ["orders", "orders"]


@pytest.mark.usefixtures("both_plugins")
async def test_the_error_for_a_role_that_may_not_publish_says_what_to_run(dsn: str, hand: psycopg.Connection) -> None:
    hand.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")
    with role(dsn) as reader:
        for plugin in ("pgoutput", "wal2json", "auto"):
            async with AsyncStore(reader, plugin=plugin) as store:
                if plugin == "pgoutput":
                    with pytest.raises(PublicationIncomplete, match=r"lacks docs\.orders: run SELECT pgdoc\.publish"):
                        await store.watch()
                    problem = (await store.status()).problem
                    assert problem is not None
                    assert problem.startswith('the publication "pgdoc" lacks docs.orders: run SELECT')
                else:
                    async with store.watch() as stream:
                        assert await stream.try_next() is None
        assert hand.execute("SELECT pgdoc.publish('docs')").fetchone() == (None,)
        async with AsyncStore(reader, plugin="pgoutput") as store, store.watch() as stream:
            hand.execute(INSERT.replace("hand", "orders").encode(), ["1"])
            assert [event.document_id for event in await take(stream)] == ["1"]


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("ALTER PUBLICATION pgdoc SET (publish = 'insert')", "does not publish every kind of change"),
        ("ALTER PUBLICATION pgdoc SET TABLE docs.orders WHERE (id > 'a')", "leaves out rows or columns"),
        ("ALTER PUBLICATION pgdoc SET TABLE docs.orders (id, data)", "leaves out rows or columns"),
        ("DROP PUBLICATION pgdoc", "does not exist: run CREATE PUBLICATION pgdoc"),
    ],
)
async def test_a_publication_that_would_leave_something_out_is_refused(
    dsn: str, hand: psycopg.Connection, change: str, found: str
) -> None:
    hand.execute(change.encode())
    async with AsyncStore(dsn, plugin="pgoutput") as store:
        with pytest.raises(PublicationIncomplete, match=found):
            await store.watch()
    async with AsyncStore(dsn, plugin="auto") as store, store.watch() as stream:
        await store["orders"].insert("o-1", {})
        assert await stream.next(timeout=PATIENCE_S) is not None


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("consumer", [None, "held"])
async def test_a_publication_dropped_under_a_stream_is_no_unreadable_change(
    dsn: str, hand: psycopg.Connection, consumer: str | None
) -> None:
    if hand.info.server_version >= 180000:
        pytest.skip("PostgreSQL 18 reads on without a publication")
    async with AsyncStore(dsn, plugin="pgoutput") as store:
        async with store.watch("orders", consumer=consumer) as stream:
            hand.execute("DROP PUBLICATION pgdoc")
            hand.execute("INSERT INTO docs.orders (id, data) VALUES ('lost', '{}')")
            with pytest.raises(HistoryLost, match="does not exist"):
                await stream.next(timeout=PATIENCE_S)
        if consumer is not None:
            assert await store.drop_consumer(consumer)


@pytest.mark.usefixtures("both_plugins")
async def test_what_is_older_than_the_publication_is_refused(dsn: str, hand: psycopg.Connection) -> None:
    async with AsyncStore(dsn, plugin="pgoutput") as store:
        async with store.watch() as stream:
            start = str(stream.resume_token)
        async with store.watch(consumer="early") as stream:
            pass
        hand.execute("DROP PUBLICATION pgdoc")
        hand.execute("INSERT INTO docs.orders (id, data) VALUES ('lost', '{}')")
        hand.execute("CREATE PUBLICATION pgdoc")
        with pytest.raises(HistoryLost):
            await store.watch(resume_after=start)
        with pytest.raises(HistoryLost, match="drop early"):
            await store.watch(consumer="early")
        async with store.watch(consumer="early", on_lost="recreate") as stream:
            assert stream.stats().recreated == 1
            await store["orders"].insert("found", {})
            assert [event.document_id for event in await take(stream)] == ["found"]
        assert await store.drop_consumer("early")
    assert await ids(dsn, "wal2json", start, 2) == ["lost", "found"]
