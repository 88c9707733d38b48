# Written by .ci/twins.py from tests/integration/_async/test_plugin.py: change that file, and run it.
"""Output plugins: which one is used, and what pgoutput needs in the publication."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import Store
from pgdoc.errors import HistoryLost, PublicationIncomplete
from tests.integration._sync.streams import PATIENCE_S, take

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


def ids(dsn: str, plugin: str, after: str, count: int) -> list[str | None]:
    with Store(dsn, plugin=plugin) as store, store.watch(resume_after=after) as stream:
        return [event.document_id for event in take(stream, count)]


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("plugin", PLUGINS)
def test_status_shows_the_plugin_and_the_reason(shared_dsn: str, schema: str, plugin: str) -> None:
    with Store(shared_dsn, schema=schema, plugin=plugin) as store:
        status = store.status()
        assert (status.plugin, status.plugin_reason, status.problem) == (plugin, "the store asks for it", None)
    with Store(shared_dsn, schema=schema, plugin="auto") as store:
        status = store.status()
        assert (status.plugin, status.plugin_reason) == ("wal2json", "the server has and allows wal2json")


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize(("first", "second"), [PLUGINS, PLUGINS[::-1]])
def test_a_consumer_goes_on_with_the_plugin_of_its_slot(
    shared_dsn: str, schema: str, sql: psycopg.Connection, first: str, second: str
) -> None:
    name, places = f"keeps_{first}", []
    for number, (plugin, read) in enumerate([(first, first), (second, first), (second, second), (first, second)]):
        if number == 2:  # drop the slot; the next opening re-creates it from history
            sql.execute("SELECT pg_terminate_backend(active_pid, 5000) " + _SLOT, [name])  # it may still be active
            sql.execute("SELECT pg_drop_replication_slot(slot_name) " + _SLOT, [name])
        with Store(shared_dsn, schema=schema, plugin=plugin) as store:
            with store["orders"].watch(consumer=name) as stream:
                assert sql.execute("SELECT plugin " + _SLOT, [name]).fetchall() == [(read,)]
                store["orders"].insert(str(number), {})
                (event,) = take(stream)
                assert event.document_id == str(number)
                places.append(event.resume_token)
                stream.ack()
            if number == 3:
                assert store.drop_consumer(name)
    assert places == sorted(set(places))


@pytest.mark.usefixtures("both_plugins")
def test_a_table_made_by_hand_is_a_collection_from_when_it_is_registered(dsn: str, hand: psycopg.Connection) -> None:
    with Store(dsn, plugin="wal2json") as store, store.watch() as stream:
        start = str(stream.resume_token)
        hand.execute(BY_HAND)
        hand.execute(INSERT, ["before"])
        with hand.transaction():
            hand.execute(INSERT, ["before, too"])
            hand.execute("SELECT pgdoc.register('docs.hand')")
            hand.execute(INSERT, ["after"])
        hand.execute("SELECT pgdoc.unregister('docs.hand')")
        hand.execute(INSERT, ["not any more"])
        store["orders"].insert("o-1", {})
        live = take(stream, 4)
    assert [(str(event.event_type), event.document_id) for event in live] == [
        ("create", None),
        ("insert", "after"),
        ("drop", None),
        ("insert", "o-1"),
    ]
    for plugin in PLUGINS:
        with Store(dsn, plugin=plugin) as store, store.watch(resume_after=start) as stream:
            assert take(stream, 4) == live


def test_publishing_a_table_waits_for_its_writers(dsn: str, hand: psycopg.Connection) -> None:
    hand.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")
    insert = INSERT.replace("hand", "orders")
    with Store(dsn, plugin="pgoutput") as store:
        with psycopg.connect(dsn) as writer:
            writer.execute(insert.encode(), ["half"])
            with pytest.raises(PublicationIncomplete, match=r"lacks docs\.orders: run SELECT pgdoc\.publish\('docs'\)"):
                store.watch()
            writer.execute(insert.encode(), ["published"])
        with store.watch() as stream:
            hand.execute(insert.encode(), ["whole"])
            (event,) = take(stream)
            assert event.document_id == "whole"


@pytest.mark.usefixtures("both_plugins")
def test_a_collection_that_left_the_publication_is_read_from_when_it_is_back(
    dsn: str, hand: psycopg.Connection
) -> None:
    insert = INSERT.replace("hand", "orders").encode()
    with Store(dsn, plugin="wal2json") as store, store.watch() as stream:
        store.create_collection("other")
        start = str(stream.resume_token)
        with Store(dsn, plugin="pgoutput") as other:
            for name in ("orders", "other"):
                other.create_consumer(f"of_{name}", name)
        hand.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")
        hand.execute(insert, ["away"])
        assert [str(event.event_type) for event in take(stream, 2)] == ["create", "insert"]
    with Store(dsn, plugin="pgoutput") as store:
        with store.watch() as stream:
            hand.execute(insert, ["back"])
            assert [event.document_id for event in take(stream)] == ["back"]
        for names in ((), ("orders",), ("other", "orders")):
            with pytest.raises(HistoryLost, match='older than the publication "pgdoc"') as raised:
                store.watch(*names, resume_after=start)
            assert raised.value.oldest_available is not None
        with pytest.raises(HistoryLost):
            store.watch(resume_after=start, consumer="late")
        with pytest.raises(HistoryLost, match='older than the publication "pgdoc"'):
            store.watch("orders", consumer="of_orders")
        with (
            store.watch("other", consumer="of_other") as known,
            store.watch("other", resume_after=start, consumer="of_both") as new,
            store.watch("other", resume_after=start) as stream,
        ):
            store["other"].insert("o-1", {})
            assert [event.document_id for event in take(known, 1) + take(new, 2)] == ["o-1", None, "o-1"]
            events = take(stream, 2)
            assert [event.document_id for event in events] == [None, "o-1"]
        for name in ("of_orders", "of_other", "of_both"):
            store.drop_consumer(name)
    assert ids(dsn, "wal2json", start, 4) == [None, "away", "back", "o-1"]


@pytest.mark.parametrize("topics", [None, ["*"]])
def test_a_consumer_that_comes_back_notices_what_the_publication_lacks_by_now(
    dsn: str, hand: psycopg.Connection, topics: list[str] | None
) -> None:
    with Store(dsn, plugin="pgoutput") as store:
        with (
            store.watch("orders", topics=topics, consumer="back") as stream,
            store.watch("other", consumer="other") as other,
        ):
            hand.execute(f"ALTER PUBLICATION pgdoc DROP TABLE {'pgdoc.messages' if topics else 'docs.orders'}".encode())
            hand.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE '%consumer%'"
            )
            with pytest.raises(PublicationIncomplete, match=r'consumer "back": the publication "pgdoc" lacks'):
                stream.next(timeout=PATIENCE_S)
            store["other"].insert("o-1", {})
            assert [event.document_id for event in take(other)] == ["o-1"]
        with pytest.raises(HistoryLost):  # it may have missed something
            store.watch("orders", topics=topics, consumer="back")
        for name in ("back", "other"):
            assert store.drop_consumer(name)


def test_a_table_that_is_not_registered_is_not_published(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as hand:
        hand.execute("CREATE SCHEMA docs")
        with Store(dsn, plugin="pgoutput") as store, store.watch() as stream:
            hand.execute("CREATE TABLE docs.plain (id text)")
            hand.execute("INSERT INTO docs.plain VALUES ('1')")
            hand.execute("UPDATE docs.plain SET id = '2'")  # would fail if the table were published
            store["orders"].insert("o-1", {})
            assert [event.collection for event in take(stream, 2)] == ["orders", "orders"]


@pytest.mark.usefixtures("both_plugins")
def test_the_error_for_a_role_that_may_not_publish_says_what_to_run(dsn: str, hand: psycopg.Connection) -> None:
    hand.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.orders")
    with role(dsn) as reader:
        for plugin in ("pgoutput", "wal2json", "auto"):
            with Store(reader, plugin=plugin) as store:
                if plugin == "pgoutput":
                    with pytest.raises(PublicationIncomplete, match=r"lacks docs\.orders: run SELECT pgdoc\.publish"):
                        store.watch()
                    problem = (store.status()).problem
                    assert problem is not None
                    assert problem.startswith('the publication "pgdoc" lacks docs.orders: run SELECT')
                else:
                    with store.watch() as stream:
                        assert stream.try_next() is None
        assert hand.execute("SELECT pgdoc.publish('docs')").fetchone() == (None,)
        with Store(reader, plugin="pgoutput") as store, store.watch() as stream:
            hand.execute(INSERT.replace("hand", "orders").encode(), ["1"])
            assert [event.document_id for event in take(stream)] == ["1"]


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
def test_a_publication_that_would_leave_something_out_is_refused(
    dsn: str, hand: psycopg.Connection, change: str, found: str
) -> None:
    hand.execute(change.encode())
    with Store(dsn, plugin="pgoutput") as store:
        with pytest.raises(PublicationIncomplete, match=found):
            store.watch()
    with Store(dsn, plugin="auto") as store, store.watch() as stream:
        store["orders"].insert("o-1", {})
        assert stream.next(timeout=PATIENCE_S) is not None


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("consumer", [None, "held"])
def test_a_publication_dropped_under_a_stream_is_no_unreadable_change(
    dsn: str, hand: psycopg.Connection, consumer: str | None
) -> None:
    if hand.info.server_version >= 180000:
        pytest.skip("PostgreSQL 18 reads on without a publication")
    with Store(dsn, plugin="pgoutput") as store:
        with store.watch("orders", consumer=consumer) as stream:
            hand.execute("DROP PUBLICATION pgdoc")
            hand.execute("INSERT INTO docs.orders (id, data) VALUES ('lost', '{}')")
            with pytest.raises(HistoryLost, match="does not exist"):
                stream.next(timeout=PATIENCE_S)
        if consumer is not None:
            assert store.drop_consumer(consumer)


@pytest.mark.usefixtures("both_plugins")
def test_what_is_older_than_the_publication_is_refused(dsn: str, hand: psycopg.Connection) -> None:
    with Store(dsn, plugin="pgoutput") as store:
        with store.watch() as stream:
            start = str(stream.resume_token)
        with store.watch(consumer="early") as stream:
            pass
        hand.execute("DROP PUBLICATION pgdoc")
        hand.execute("INSERT INTO docs.orders (id, data) VALUES ('lost', '{}')")
        hand.execute("CREATE PUBLICATION pgdoc")
        with pytest.raises(HistoryLost):
            store.watch(resume_after=start)
        with pytest.raises(HistoryLost, match="drop early"):
            store.watch(consumer="early")
        with store.watch(consumer="early", on_lost="recreate") as stream:
            assert stream.stats().recreated == 1
            store["orders"].insert("found", {})
            assert [event.document_id for event in take(stream)] == ["found"]
        assert store.drop_consumer("early")
    assert ids(dsn, "wal2json", start, 2) == ["lost", "found"]
