"""What wal2json can't tell about watched tables: NaN, and tables that it was not asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import HistoryLost, TableRefused, UnreadableDocument
from tests.plugins import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, ChangeStream

pytestmark = pytest.mark.usefixtures("both_plugins")

_ROWS = "INSERT INTO t VALUES (1, 'NaN'), (2, 'Infinity'), (3, NULL), (4, 1.5)"
_DATA = [{"id": 1, "f": "NaN"}, {"id": 2, "f": "Infinity"}, {"id": 3, "f": None}, {"id": 4, "f": 1.5}]


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def take(stream: ChangeStream, count: int) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    while len(events) < count:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, events
        events.append(event)
    return events


def rows(stream: ChangeStream, count: int) -> list[Any]:
    return [event.full_document.data for event in take(stream, count) if event.full_document is not None]


@pytest.mark.parametrize("kind", ["float4", "float8", "numeric", "numeric(6, 2)"])
def test_nan_is_read_through_pgoutput(dsn: str, sql: psycopg.Connection, kind: str) -> None:
    values = _ROWS if kind != "numeric(6, 2)" else _ROWS.replace("Infinity", "NaN")
    data = _DATA if kind != "numeric(6, 2)" else [_DATA[0], {"id": 2, "f": "NaN"}, *_DATA[2:]]
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with Store(dsn, plugin="auto") as store:
        with store.watch(tables=True) as stream, store.watch(tables=True, consumer="c") as consumer:
            start = stream.resume_token
            assert store.add_table("public.t")
            sql.execute(f"ALTER TABLE t ADD COLUMN f {kind}".encode())
            sql.execute(values.encode())
            assert rows(stream, 6) == data
            assert rows(consumer, 6) == data
        with store.watch("public.t", resume_after=start) as stream:
            assert rows(stream, 6) == data
        store.drop_consumer("c")


def test_a_consumer_changes_its_plugin_for_nan(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.t")
        with store.watch("public.t", consumer="c") as consumer:
            sql.execute("INSERT INTO t VALUES (0)")
            assert rows(consumer, 1) == [{"id": 0}]
            consumer.ack()
    sql.execute("ALTER TABLE t ADD COLUMN f float8")
    sql.execute(_ROWS.encode())
    with Store(dsn, plugin="auto") as store:
        with store.watch("public.t", consumer="c") as consumer:
            assert rows(consumer, 5) == _DATA
        assert store.drop_consumer("c")


def test_a_publication_that_lacks_a_collection_is_not_read_for_nan(dsn: str, sql: psycopg.Connection) -> None:
    """Through it, changes of the collection would be lost."""
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with Store(dsn, plugin="auto") as store:
        store.add_table("public.t")
        docs = store.create_collection("x")
        with (
            store.watch("x") as stream,
            store.watch("x", "public.t", consumer="c", auto_ack=False) as consumer,
        ):
            start = stream.resume_token
            sql.execute("ALTER PUBLICATION pgdoc DROP TABLE docs.x")
            docs.insert("1", {})
            assert take(stream, 1)[0].document_id == "1"
            sql.execute("ALTER TABLE t ADD COLUMN f float8")
            sql.execute("INSERT INTO t VALUES (1, 'NaN')")
            docs.insert("2", {})
            assert take(stream, 1)[0].document_id == "2"
            *_, nan, last = take(consumer, 4)
            assert last.document_id == "2"
            with pytest.raises(UnreadableDocument, match="NaN"):
                _ = nan.full_document
            status = store.status()
            assert (status.plugin, "lacks docs.x" in status.plugin_reason) == ("wal2json", True)
    with Store(dsn, plugin="auto") as store:  # repairs the publication, from now on
        with store.watch("x", "public.t", consumer="c") as consumer:
            assert [event.document_id for event in take(consumer, 4)] == ["1", None, "1", "2"]
        with pytest.raises(HistoryLost):
            store.watch("x", resume_after=start)
        assert store.drop_consumer("c")


def test_a_store_that_insists_on_wal2json_never_shows_nan_as_null(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, f float8)")
    sql.execute("CREATE TABLE whole (id int PRIMARY KEY, d float8[])")
    with Store(dsn, plugin="wal2json") as store:
        store.add_table("public.t")
        store.add_table("public.whole")
        with (
            store.watch("public.t", "public.whole") as stream,
            store.watch("public.t", where={"document_id": "2"}) as other,
            store.watch("public.whole", "docs") as third,
        ):
            sql.execute("INSERT INTO t VALUES (4, 1.5)")
            sql.execute("UPDATE t SET f = 'NaN'")
            sql.execute("INSERT INTO whole VALUES (2, '{NaN,Infinity,NULL}')")
            assert rows(stream, 1) == [{"id": 4, "f": 1.5}]
            (event,) = take(stream, 1)
            assert event.document_id == "4"
            with pytest.raises(UnreadableDocument, match='plugin="auto"') as caught:
                _ = event.full_document and event.full_document.data
            assert caught.value.collection == "public.t"
            assert rows(third, 1) == [{"id": 2, "d": ["NaN", "Infinity", None]}]
            assert other.next(timeout=0) is None


@pytest.mark.parametrize("end", ["SELECT pgdoc.remove_table('t')", "DROP TABLE t", "ALTER TABLE t RENAME TO s"])
@pytest.mark.parametrize("plugin", ["wal2json", "pgoutput"])
def test_the_last_rows_of_a_table_count_even_if_their_transaction_commits_late(
    dsn: str, sql: psycopg.Connection, plugin: str, end: str
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    sql.execute("CREATE TABLE u (id int PRIMARY KEY)")
    with Store(dsn, plugin=plugin) as store, psycopg.connect(dsn) as late:
        store.add_table("public.t")
        store.add_table("public.u")
        with store.watch("public.t", "public.u", consumer="c") as consumer:
            late.execute("INSERT INTO t VALUES (1)")
            late.execute("SELECT pgdoc.remove_table('u')")
            late.execute("SELECT pgdoc.add_table('u')")
            late.execute("INSERT INTO u VALUES (1)")
            late.execute(end.encode())
            sql.execute("CREATE TABLE between AS SELECT 1")
            between = sql.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            late.commit()
            kinds = [str(event.event_type) for event in take(consumer, 5)]
            assert kinds == ["insert", "drop", "create", "insert", "rename" if "RENAME" in end else "drop"]
        with store.watch("public.t", "public.u", resume_after=between[0]) as stream:  # type: ignore[index]
            assert [str(event.event_type) for event in take(stream, 5)] == kinds
        store.drop_consumer("c")


def test_without_event_triggers_a_table_is_watched_through_pgoutput_alone(
    dsn: str, sql: psycopg.Connection[Any]
) -> None:
    """Under another name, its rows would be lost, if it had its own again before anybody looked."""
    sql.execute("DROP EVENT TRIGGER pgdoc_alters; DROP EVENT TRIGGER pgdoc_drops")
    sql.execute("CREATE TABLE public.t (id int PRIMARY KEY)")
    with Store(dsn, plugin="wal2json") as store:
        store.add_table("public.t")
        for names, options in ((["public.t"], {}), ([], {"tables": True}), (["public.t"], {"consumer": "c"})):
            with pytest.raises(TableRefused, match="no event trigger"):
                store.watch(*names, **options)
        store.watch().close()
    away = "ALTER TABLE t RENAME TO away; INSERT INTO away VALUES (2); ALTER TABLE away RENAME TO t"
    with Store(dsn, plugin="auto") as store, store.watch("public.t") as stream:
        sql.execute(away.encode())
        sql.execute("INSERT INTO t VALUES (3)")
        assert [event.document_id for event in take(stream, 2)] == ["2", "3"]
