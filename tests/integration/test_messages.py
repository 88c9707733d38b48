"""The table of the application's own events: the catalog's upgrade, the publication, poison, and the table's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import ChangeEvent, ChangeStream, HistoryLost, Store
from pgdoc.cli.app import run_cli
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.errors import PublicationIncomplete
from tests.integration._async.test_plugin import role
from tests.poison import insert_poison, make_poisonous

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30
PLUGINS = ["wal2json", "pgoutput"]


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pgdoc.create_collection('docs', 'orders')")
        yield connection
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


def take(stream: ChangeStream, count: int) -> list[ChangeEvent]:
    found = [stream.next(timeout=PATIENCE_S) for _ in range(count)]
    assert None not in found
    return [event for event in found if event is not None]


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("plugin", PLUGINS)
def test_positions_from_before_the_upgrade_of_the_catalog_go_on(dsn: str, sql: psycopg.Connection, plugin: str) -> None:
    """The publication has no table of messages at those positions, and the slots were made without it."""
    with Store(dsn, plugin=plugin) as store:
        store["orders"].insert("o-0", {})
        with store.watch("*", topics=["*"], consumer="c", auto_ack=False) as stream:
            token = stream.resume_token
            sql.execute("SELECT pgdoc.publish('a', '\"of the former table\"')")
            take(stream, 1)
    downgrade(dsn, "0012")
    sql.execute("INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')")
    migrate(dsn)
    with Store(dsn, plugin=plugin) as store:
        store.publish("a", 1)
        store["orders"].insert("o-2", {})
        for options in ({"resume_after": token}, {"consumer": "c"}):
            with store.watch("*", topics=["*"], **options) as stream:
                found = [event.topic or event.document_id for event in take(stream, 4)]
            assert found == ["a", "o-1", "a", "o-2"]
        store.drop_consumer("c")


def test_a_publication_that_lacks_the_table_gets_it_again(dsn: str, sql: psycopg.Connection) -> None:
    with Store(dsn, plugin="pgoutput") as store:
        with store.watch(topics=["*"]) as stream:
            token = stream.resume_token
        sql.execute("ALTER PUBLICATION pgdoc DROP TABLE pgdoc.messages")
        store.publish("a", "missed")
        with role(dsn) as other, Store(other, plugin="pgoutput") as stranger:
            with pytest.raises(PublicationIncomplete, match=r"lacks pgdoc.messages: run SELECT pgdoc.publish_messages"):
                stranger.watch(topics=["a"])
            stranger.watch().close()  # who wants no messages does not need it
        with store.watch(topics=["*"]) as stream:
            store.publish("a", 1)
            assert [event.payload for event in take(stream, 1)] == [1]
        with pytest.raises(HistoryLost):  # from where the publication may have left some out
            store.watch(topics=["*"], resume_after=token)


def test_a_publication_that_gets_the_table_again_costs_only_streams_on_topics_their_history(
    dsn: str, sql: psycopg.Connection
) -> None:
    with Store(dsn, plugin="pgoutput") as store:
        for consumer, topics in (("documents", None), ("messages", ["*"])):
            with store.watch("orders", topics=topics, consumer=consumer, auto_ack=False) as stream:
                token = stream.resume_token
        sql.execute("ALTER PUBLICATION pgdoc DROP TABLE pgdoc.messages")
        store["orders"].insert("o-1", {})
        store.publish("a", "missed")
        store.watch(topics=["*"]).close()
        with pytest.raises(HistoryLost):
            store.watch("orders", topics=["*"], consumer="messages")
        with pytest.raises(HistoryLost):
            store.watch(topics=["*"], consumer="new", resume_after=token)
        for options in ({"resume_after": token}, {"consumer": "documents"}):
            with store.watch("orders", **options) as found:
                assert [event.document_id for event in take(found, 1)] == ["o-1"]
        for consumer in ("documents", "messages"):
            store.drop_consumer(consumer)


@pytest.mark.usefixtures("both_plugins", "any_plugin")
def test_a_change_of_the_plugin_leaves_out_no_event(dsn: str, sql: psycopg.Connection) -> None:
    """The publication has every table but that of messages when wal2json would lose values of a new one."""
    with Store(dsn) as store, store.watch("*", topics=["*"], tables=True, consumer="c") as stream:
        sql.execute("ALTER PUBLICATION pgdoc DROP TABLE pgdoc.messages")
        sql.execute("CREATE TABLE docs.measures (id int PRIMARY KEY, value numeric)")
        store.add_table("docs.measures")
        store.publish("a", 1)
        sql.execute("INSERT INTO docs.measures VALUES (1, 1.5)")
        found = take(stream, 3)
    assert [(event.event_type, event.payload) for event in found] == [
        ("create", None),
        ("message", 1),
        ("insert", None),
    ]
    with Store(dsn) as store:
        store.drop_consumer("c")
    with role(dsn) as other, Store(other) as stranger, pytest.raises(PublicationIncomplete, match="publish_messages"):
        stranger.watch(topics=["a"])  # a stream can't tell when the hub changes to pgoutput


def test_a_publication_of_all_tables_stops_no_upgrade(dsn: str, sql: psycopg.Connection) -> None:
    downgrade(dsn, "0012")
    sql.execute("DROP PUBLICATION pgdoc")
    sql.execute("CREATE PUBLICATION pgdoc FOR ALL TABLES")
    migrate(dsn)
    sql.execute("SELECT pgdoc.publish('a', '1')")


@pytest.mark.usefixtures("both_plugins")
@pytest.mark.parametrize("consumer", [None, "c"])
def test_a_change_that_can_not_be_sent_keeps_no_event_from_its_stream(
    dsn: str, sql: psycopg.Connection, consumer: str | None
) -> None:
    make_poisonous(sql, "files")
    with Store(dsn, plugin="wal2json") as store, store.watch("orders", topics=["a.*"], consumer=consumer) as stream:
        with sql.transaction():
            sql.execute("SELECT pgdoc.publish('a.b', '1')")
            insert_poison(sql, "files")
            sql.execute("INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')")
            sql.execute("SELECT pgdoc.publish('a.b', '2')")
        store.publish("a.b", 3)
        assert [event.payload or event.document_id for event in take(stream, 4)] == [1, "o-1", 2, 3]


@pytest.mark.usefixtures("both_plugins")
def test_no_detour_leads_past_messages_that_are_not_published(dsn: str, sql: psycopg.Connection) -> None:
    """What wal2json can't send is read through pgoutput, unless that would leave out the messages."""
    make_poisonous(sql, "files", plain=("plain",))
    sql.execute("ALTER PUBLICATION pgdoc DROP TABLE pgdoc.messages")
    with Store(dsn, plugin="wal2json") as store, store.watch("orders", topics=["a"]) as stream:
        with sql.transaction():
            sql.execute("SELECT pgdoc.publish('a', '1')")
            insert_poison(sql, "plain")
            sql.execute("SELECT pgdoc.publish('a', '2')")
        store.publish("a", 3)
        assert [event.payload for event in take(stream, 3)] == [1, 2, 3]


def test_the_table_does_not_grow(dsn: str, sql: psycopg.Connection) -> None:
    """What is deleted leaves room, and no statement reads what waits for VACUUM."""
    publish = "INSERT INTO pgdoc.messages (topic, payload) SELECT 'a', to_jsonb(n) FROM generate_series(1, 5000) AS n"
    size = "SELECT pg_total_relation_size('pgdoc.messages')"
    sql.execute("ALTER TABLE pgdoc.messages SET (autovacuum_enabled = off)")
    sql.execute("VACUUM ANALYZE pgdoc.messages")  # with statistics of an empty table, from here on
    for _ in range(10):  # the plan of the trigger is kept from here on
        sql.execute("INSERT INTO pgdoc.messages (topic, payload) VALUES ('a', '1')")
        sql.execute("SELECT pgdoc.publish('a', '1')")
    sizes = []
    for _ in range(8):
        sql.execute(publish)
        sql.execute("SELECT count(pgdoc.publish('a', '1')) FROM generate_series(1, 1000)")
        sizes += [bytes_ for (bytes_,) in sql.execute(size).fetchall()]
        sql.execute("VACUUM pgdoc.messages")
    assert max(sizes) < 2 * sizes[0]  # an index uses a page that was emptied again after the VACUUM that follows
    sql.execute("SELECT pg_stat_force_next_flush()")
    read = "SELECT seq_tup_read, idx_scan FROM pg_stat_all_tables WHERE relid = 'pgdoc.messages'::regclass"
    assert sql.execute(read).fetchall() == [(0, 40_010)]


def test_a_frozen_database_takes_no_events(dsn: str, sql: psycopg.Connection) -> None:
    assert run_cli(["upgrade", "prepare", "--dsn", dsn, "--timeout", "20", "--only"]) == 0
    with pytest.raises(psycopg.Error, match="takes no writes"):
        sql.execute("SELECT pgdoc.publish('a', '1')")
    assert run_cli(["upgrade", "prepare", "--cancel", "--dsn", dsn, "--only"]) == 0
    sql.execute("SELECT pgdoc.publish('a', '1')")
