# Written by .ci/twins.py from tests/integration/_async/test_table_streams.py: change that file, and run it.
"""Streams of tables that are watched as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import NotACollection, TableRefused, UnreadableChange
from tests.integration._sync.streams import brief, take, take_to
from tests.poison import UNPRINTABLE_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

_ORDERS = "CREATE TABLE public.orders (id int PRIMARY KEY, total int, note text)"
END = "END"


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def images(event: pgdoc.ChangeEvent) -> tuple[Any, Any]:
    before, after = event.full_document_before_change, event.full_document
    return (None if before is None else before.data, None if after is None else after.data)


def test_each_kind_of_change_of_a_row_is_an_event(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        assert store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1, 10, 'new')")
            sql.execute("UPDATE orders SET total = 11, note = NULL")
            sql.execute("UPDATE orders SET note = note")
            sql.execute("DELETE FROM orders")
            sql.execute("TRUNCATE orders")
            events = take(stream, 5)
    assert b'"data":{"id":1,"total":10,"note":"new"}' in events[0].to_json()
    assert brief(events) == [
        ("insert", "public.orders", "1"),
        ("update", "public.orders", "1"),
        ("update", "public.orders", "1"),
        ("delete", "public.orders", "1"),
        ("truncate", "public.orders", None),
    ]
    first, second = {"id": 1, "total": 10, "note": "new"}, {"id": 1, "total": 11, "note": None}
    assert [images(event) for event in events] == [
        (None, first),
        (first, second),
        (second, second),
        (second, None),
        (None, None),
    ]
    described = [event.update_description for event in events]
    assert described[1] is not None
    assert described[1].updated_fields == {"total": 11, "note": None}
    assert described[2] is not None
    assert described[2].updated_fields == {}
    assert [described[0], described[3], described[4]] == [None] * 3
    assert [event.columns for event in events] == [None] * 5


def test_a_row_has_neither_version_nor_times(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1)")
            (event,) = take(stream)
    row = event.full_document
    assert row is not None
    for name in ("version", "created_at", "updated_at"):
        with pytest.raises(NotACollection, match=r"public\.orders"):
            getattr(row, name)
        assert not hasattr(row, name)
    assert event.to_dict()["full_document"] == {"id": "1", "data": {"id": 1, "total": None, "note": None}}
    assert event.timestamp.tzinfo is not None


def test_a_table_with_a_document_has_its_other_columns_beside_it(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE public.events (id int PRIMARY KEY, kind text, payload jsonb)")
    with Store(dsn) as store:
        store.add_table("public.events", document="payload")
        with store.watch("public.events") as stream:
            sql.execute("""INSERT INTO events VALUES (1, 'a', '{"n": {"m": 1}, "x": [1]}')""")
            sql.execute("""UPDATE events SET kind = 'b', payload = '{"n": {"m": 2}, "x": [1]}'""")
            sql.execute("UPDATE events SET payload = NULL")
            sql.execute("UPDATE events SET payload = '[1, 2]'")
            sql.execute("""UPDATE events SET payload = '{"_id": 1}'""")
            sql.execute("DELETE FROM events")
            events = take(stream, 6)
    assert [images(event) for event in events] == [
        (None, {"n": {"m": 1}, "x": [1]}),
        ({"n": {"m": 1}, "x": [1]}, {"n": {"m": 2}, "x": [1]}),
        ({"n": {"m": 2}, "x": [1]}, None),
        (None, [1, 2]),
        ([1, 2], {"_id": 1}),
        ({"_id": 1}, None),
    ]
    described = events[1].update_description
    assert described is not None
    assert [event.update_description for event in events[2:]] == [None] * 4
    assert described.updated_fields == {"n.m": 2}
    assert [event.columns for event in events] == [
        {"id": 1, "kind": "a"},
        {"id": 1, "kind": "b"},
        {"id": 1, "kind": "b"},
        {"id": 1, "kind": "b"},
        {"id": 1, "kind": "b"},
        {"id": 1, "kind": "b"},
    ]
    for event in events:
        assert json.loads(event.to_json()) == event.to_dict()


def test_rows_and_documents_of_a_transaction_come_in_their_order(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        store.create_collection("orders")
        with store.watch("orders", "public.orders") as stream:
            with sql.transaction():
                sql.execute('SELECT pgdoc.set_metadata(\'{"by": "ann"}\')')
                sql.execute("INSERT INTO orders VALUES (1)")
                sql.execute("INSERT INTO docs.orders (id, data) VALUES ('d', '{}')")
                with sql.cursor().copy("COPY orders (id) FROM STDIN") as copy:
                    copy.write("2\n3\n4\n")
                sql.execute("UPDATE docs.orders SET data = '{\"n\": 1}'")
                sql.execute("UPDATE orders SET id = -id WHERE id = 1")
                sql.execute("DELETE FROM orders WHERE id = 2")
            events = take(stream, 9)
    assert brief(events) == [
        ("insert", "public.orders", "1"),
        ("insert", "orders", "d"),
        ("insert", "public.orders", "2"),
        ("insert", "public.orders", "3"),
        ("insert", "public.orders", "4"),
        ("update", "orders", "d"),
        ("delete", "public.orders", "1"),
        ("insert", "public.orders", "-1"),
        ("delete", "public.orders", "2"),
    ]
    assert [event.metadata for event in events] == [{"by": "ann"}] * 9
    assert len({event.transaction_id for event in events}) == 1
    positions = [event.resume_token.position for event in events]
    assert positions == sorted(set(positions))
    assert [position.ordinal for position in positions] == [0, 0, 0, 1, 2, 0, 0, 1, 0]


def test_a_key_that_an_update_changes_is_a_delete_and_an_insert(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE public.n (id numeric PRIMARY KEY, v int)")
    sql.execute("CREATE TABLE public.pairs (v int, b text, a int, PRIMARY KEY (a, b))")
    with Store(dsn) as store:
        store.add_table("public.n")
        store.add_table("public.pairs")
        with store.watch("public.n", "public.pairs") as stream:
            sql.execute("INSERT INTO n VALUES (1.0, 7)")
            sql.execute("UPDATE n SET id = 1.00, v = 8")
            sql.execute("UPDATE n SET v = 9")
            sql.execute("INSERT INTO pairs VALUES (1, 'x\"y', 2)")
            sql.execute("UPDATE pairs SET a = 3")
            events = take(stream, 7)
    assert brief(events) == [
        ("insert", "public.n", "1.0"),
        ("delete", "public.n", "1.0"),
        ("insert", "public.n", "1.00"),
        ("update", "public.n", "1.00"),
        ("insert", "public.pairs", '["2","x\\"y"]'),
        ("delete", "public.pairs", '["2","x\\"y"]'),
        ("insert", "public.pairs", '["3","x\\"y"]'),
    ]
    assert [images(event) for event in events[1:3]] == [
        ({"id": 1.0, "v": 7}, None),
        (None, {"id": 1.0, "v": 8}),
    ]
    assert [event.resume_token.position.ordinal for event in events] == [0, 0, 1, 0, 0, 0, 1]


def test_tables_of_equal_names_are_truncated_together(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    sql.execute("CREATE SCHEMA docs CREATE TABLE orders (id int PRIMARY KEY)")
    sql.execute("CREATE TABLE public.lines (id int PRIMARY KEY, of_order int REFERENCES docs.orders)")
    with Store(dsn) as store:
        for name in ("public.orders", "docs.orders", "public.lines"):
            store.add_table(name)
        with store.watch("public.orders", "docs.orders", "public.lines") as stream:
            sql.execute("TRUNCATE public.orders, docs.orders CASCADE")
            events = take(stream, 3)
            start = stream.resume_token
            sql.execute("INSERT INTO orders VALUES (1)")
            assert brief(take(stream)) == [("insert", "public.orders", "1")]
        assert {event.collection for event in events} == {"public.orders", "docs.orders", "public.lines"}
        assert {event.event_type.value for event in events} == {"truncate"}
        assert events[-1].resume_token == start
        names = [event.collection for event in events]
        for number, event in enumerate(events):
            with store.watch(*names, resume_after=event.resume_token) as stream:
                found = take(stream, 3 - number)
                assert [each.collection for each in found[:-1]] == names[number + 1 :]
                assert found[-1].document_id == "1"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"full_document.data.total": {"$gt": 5}}, ["2", "2", "1"]),
        ({"full_document.data.note": "a"}, ["1"]),
        ({"full_document_before_change.data.note": "a"}, ["1"]),
        ({"document_id": "2"}, ["2", "2"]),
        ({"document_id": {"$in": ["1", "7"]}}, ["1", "1"]),
        ({"event_type": "update"}, ["2", "1"]),
        ({"collection": "public.orders", "event_type": {"$in": ["insert"]}}, ["1", "2"]),
        ({"collection": "orders"}, []),
        ({"update_description.updated_fields.total": 6}, ["1"]),
    ],
)
def test_a_filter_looks_at_columns(
    dsn: str, sql: psycopg.Connection, where: dict[str, Any], expected: list[str]
) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        with (
            store.watch("public.orders", where={"$or": [where, {"document_id": END}]}) as stream,
            store.watch("public.orders", "end", where={"$or": [where, {"collection": "end"}]}) as other,
            store.watch(tables=True, where={"$or": [where, {"collection": "end"}]}) as third,
        ):
            sql.execute("INSERT INTO orders VALUES (1, 1, 'a'), (2, 6, 'b')")
            sql.execute("UPDATE orders SET total = 9 WHERE id = 2")
            sql.execute("UPDATE orders SET total = 6, note = NULL WHERE id = 1")
            store["end"].insert(END, {})
            for each in (other, third):
                found = [event for event in take_to(each, END) if event.event_type != "create"]
                assert [event.document_id for event in found] == expected
            assert [event.document_id for event in take(stream, len(expected))] == expected


def test_a_stream_of_all_collections_has_no_tables_unless_asked(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch() as stream, store.watch(tables=True) as both:
            sql.execute("INSERT INTO orders VALUES (1)")
            store.remove_table("public.orders")
            store.add_table("public.orders")
            sql.execute("ALTER TABLE orders ADD COLUMN more int")
            sql.execute("TRUNCATE orders")
            store["end"].insert(END, {})
            assert brief(take_to(stream, END)) == [("create", "end", None)]
            assert brief(take_to(both, END)) == [
                ("insert", "public.orders", "1"),
                ("drop", "public.orders", None),
                ("create", "public.orders", None),
                ("schema", "public.orders", None),
                ("truncate", "public.orders", None),
                ("create", "end", None),
            ]
        with pytest.raises(ValueError, match="tables=True"):
            store.watch("orders", tables=True)


def test_a_table_that_was_not_added_is_refused(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        for name in ("public.orders", "public.missing"):
            with pytest.raises(TableRefused) as caught:
                store.watch(name)
            assert caught.value.cure is not None
            assert f"call store.add_table({name!r})" in caught.value.cure
        with pytest.raises(TableRefused):
            store.watch("public.orders", consumer="c")
        assert store.consumers() == []


def test_a_stream_ends_with_its_last_table(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1)")
            store.remove_table("public.orders")
            sql.execute("INSERT INTO orders VALUES (2)")
            store.add_table("public.orders")
            sql.execute("INSERT INTO orders VALUES (3)")
            events = take(stream, 3)
            assert brief(events) == [
                ("insert", "public.orders", "1"),
                ("drop", "public.orders", None),
                ("invalidate", "public.orders", None),
            ]
        with store.watch("public.orders", resume_after=events[-1].resume_token) as stream:
            assert brief(take(stream, 2)) == [
                ("create", "public.orders", None),
                ("insert", "public.orders", "3"),
            ]


def test_a_token_from_inside_a_transaction_goes_on_inside_it(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        store.create_collection("a")
        with store.watch("a", "public.orders") as stream:
            tokens = [stream.resume_token]
            with sql.transaction():
                sql.execute("INSERT INTO orders SELECT n FROM generate_series(1, 3) n")
                sql.execute("INSERT INTO docs.a (id, data) VALUES ('d', '{}')")
                sql.execute("UPDATE orders SET id = id + 10")
                sql.execute("UPDATE orders SET total = 1")
            events = take(stream, 3 + 1 + 6 + 3)
        expected = [event.to_json() for event in events]
        tokens += [event.resume_token for event in events[:-1]]
        for number, token in enumerate(tokens):
            with store.watch("a", "public.orders", resume_after=str(token)) as stream:
                found = take(stream, len(events) - number)
            assert [event.to_json() for event in found] == expected[number:]


def test_what_ddl_does_to_a_table_is_an_event(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    sql.execute("CREATE SCHEMA shop")
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch(tables=True) as stream:
            sql.execute("ALTER TABLE orders ADD COLUMN more int DEFAULT 7")
            sql.execute("INSERT INTO orders VALUES (1)")
            sql.execute("ALTER TABLE orders RENAME COLUMN more TO less")
            sql.execute("ALTER TABLE orders RENAME TO sales")
            sql.execute("UPDATE sales SET less = 8")
            with sql.transaction():
                sql.execute("ALTER TABLE sales SET SCHEMA shop")
                sql.execute("UPDATE shop.sales SET less = 9")
                sql.execute("ALTER TABLE shop.sales DROP COLUMN total")
                sql.execute("UPDATE shop.sales SET less = 10")
            sql.execute("ALTER SCHEMA shop RENAME TO store")
            sql.execute("DELETE FROM store.sales")
            sql.execute("DROP TABLE store.sales")
            sql.execute("CREATE TABLE store.sales (id int PRIMARY KEY)")
            sql.execute("INSERT INTO store.sales VALUES (1)")
            store["end"].insert(END, {})
            events = take_to(stream, END)
    found = [(str(event.event_type), event.collection, event.renamed_to) for event in events]
    assert found == [
        ("schema", "public.orders", None),
        ("insert", "public.orders", None),
        ("schema", "public.orders", None),
        ("rename", "public.orders", "public.sales"),
        ("update", "public.sales", None),
        ("drop", "public.sales", None),
        ("create", "shop.sales", None),
        ("update", "shop.sales", None),
        ("schema", "shop.sales", None),
        ("update", "shop.sales", None),
        ("drop", "shop.sales", None),
        ("create", "store.sales", None),
        ("delete", "store.sales", None),
        ("drop", "store.sales", None),
        ("create", "end", None),
    ]
    assert events[0].columns == {
        "before": {"id": "integer", "total": "integer", "note": "text"},
        "after": {"id": "integer", "total": "integer", "note": "text", "more": "integer"},
    }
    assert [images(event)[1] for event in events if event.event_type in {"insert", "update"}] == [
        {"id": 1, "total": None, "note": None, "more": 7},
        {"id": 1, "total": None, "note": None, "less": 8},
        {"id": 1, "total": None, "note": None, "less": 9},
        {"id": 1, "note": None, "less": 10},
    ]


_ODD_NAMES = [
    "a.b",
    'q"u""o',
    "a,b",
    " two  words ",
    "Upper",
    "*",
    "\\",
    "\\.",
    "x" * 63,
    "ü🦉",
    "it's",
    "%s{}",
    "select",
    "tab\tnew\nline",
    "-",
    ".",
    "..",
    ".x.",
]


def test_tables_of_odd_names_are_told_apart(dsn: str, sql: psycopg.Connection) -> None:
    names = [f"{schema}.{name}" for schema in ("public", "docs", "Sch, \"e'*\\") for name in _ODD_NAMES]
    names += ["docs.public.orders", "public.orders"]
    quoted = {}
    for name in names:
        schema, _, table = name.partition(".")
        address = quoted[name] = psycopg.sql.Identifier(schema, table)
        sql.execute(psycopg.sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(psycopg.sql.Identifier(schema)))
        sql.execute(psycopg.sql.SQL("CREATE TABLE {} (id int PRIMARY KEY)").format(address))
        sql.execute(psycopg.sql.SQL("CREATE TABLE {} (id int PRIMARY KEY)").format(_beside(schema, table)))
    with Store(dsn) as store:
        for name in names:
            assert store.add_table(name)
        assert [table.name for table in store.tables()] == sorted(names, key=lambda name: name.partition(".")[::2])
        with store.watch(*names) as stream, store.watch(names[0], names[-2]) as some:
            for name in names:
                schema, _, table = name.partition(".")
                sql.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (7)").format(_beside(schema, table)))
                sql.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (1)").format(quoted[name]))
            addresses = psycopg.sql.SQL(", ").join(quoted.values())
            sql.execute(psycopg.sql.SQL("TRUNCATE {}").format(addresses))
            events = take(stream, 2 * len(names))
            assert brief(events[: len(names)]) == [("insert", name, "1") for name in names]
            assert {event.collection for event in events[len(names) :]} == set(names)
            found = take(some, 4)
            assert [event.collection for event in found[:2]] == [names[0], names[-2]]


def _beside(schema: str, table: str) -> psycopg.sql.Identifier:
    """Another table, which a careless filter would take for it."""
    return psycopg.sql.Identifier(schema, f"{table[:50]} beside")


def test_a_consumer_of_a_table_goes_on_where_it_acknowledged(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch("public.orders", consumer="one") as stream:
            sql.execute("INSERT INTO orders SELECT n FROM generate_series(1, 4) n")
            sql.execute("UPDATE orders SET id = 10 WHERE id = 4")
            events = take(stream, 5)
            assert events[-1].event_type == "delete"
            stream.ack(events[-1])
        sql.execute("INSERT INTO orders VALUES (5)")
        with store.watch("public.orders", consumer="one", auto_ack=False) as stream:
            assert brief(take(stream, 2)) == [
                ("insert", "public.orders", "10"),
                ("insert", "public.orders", "5"),
            ]
        assert store.drop_consumer("one")


def test_two_consumers_each_get_every_row(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store, Store(dsn) as other:
        store.add_table("public.orders")
        with (
            store.watch("public.orders", consumer="one") as one,
            other.watch(tables=True, consumer="two") as two,
        ):
            sql.execute("INSERT INTO orders SELECT n FROM generate_series(1, 100) n")
            expected = [str(n) for n in range(1, 101)]
            assert [event.document_id for event in take(one, 100)] == expected
            assert [event.document_id for event in take(two, 100)] == expected
        for name in ("one", "two"):
            store.drop_consumer(name)


def test_a_table_that_is_added_joins_open_streams(dsn: str, sql: psycopg.Connection) -> None:
    with Store(dsn) as store, Store(dsn) as other:
        with (
            store.watch(tables=True) as stream,
            store.watch(tables=True, consumer="c") as consumer,
        ):
            for number in range(20):
                sql.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY)".encode())
                sql.execute(f"INSERT INTO t{number} VALUES (0)".encode())
                assert other.add_table(f"public.t{number}")
                sql.execute(f"INSERT INTO t{number} VALUES (1)".encode())
                other["docs"].insert(str(number), {})
            expected = []
            for number in range(20):
                expected += [("create", f"public.t{number}", None), ("insert", f"public.t{number}", "1")]
                expected += [("create", "docs", None)] if number == 0 else []
                expected += [("insert", "docs", str(number))]
            assert brief(take(stream, 61)) == expected
            assert brief(take(consumer, 61)) == expected
            assert stream.next(timeout=0.1) is None
        store.drop_consumer("c")


def test_a_table_counts_from_where_its_transaction_adds_it(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    sql.execute("CREATE TABLE public.other (id int PRIMARY KEY)")
    with Store(dsn) as store, store.watch(tables=True) as stream:
        with sql.transaction():
            sql.execute("INSERT INTO orders VALUES (1)")
            sql.execute("SELECT pgdoc.add_table('public.orders')")
            sql.execute("INSERT INTO orders VALUES (2)")
            with sql.transaction(force_rollback=True):
                sql.execute("SELECT pgdoc.add_table('public.other')")
                sql.execute("INSERT INTO other VALUES (3)")
            sql.execute("INSERT INTO other VALUES (4)")
            sql.execute("INSERT INTO orders VALUES (5)")
        with sql.transaction(force_rollback=True):
            sql.execute("SELECT pgdoc.add_table('public.other')")
        sql.execute("INSERT INTO other VALUES (6)")
        store["end"].insert(END, {})
        assert brief(take_to(stream, END)) == [
            ("create", "public.orders", None),
            ("insert", "public.orders", "2"),
            ("insert", "public.orders", "5"),
            ("create", "end", None),
        ]
        assert [table.name for table in store.tables()] == ["public.orders"]


def test_a_large_value_that_an_update_leaves_alone_is_there(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    sql.execute("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
    text = "ü" * 20_000
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1, 1, %s)", [text])
            sql.execute("UPDATE orders SET total = 2")
            sql.execute("UPDATE orders SET id = 2")
            sql.execute("UPDATE orders SET note = NULL")
            events = take(stream, 5)
    assert images(events[1]) == ({"id": 1, "total": 1, "note": text}, {"id": 1, "total": 2, "note": text})
    assert images(events[3]) == (None, {"id": 2, "total": 2, "note": text})
    assert images(events[4]) == ({"id": 2, "total": 2, "note": text}, {"id": 2, "total": 2, "note": None})


def test_json_text_is_kept_as_it_was_written(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE public.j (id int PRIMARY KEY, v json)")
    texts = ['{"a":  1, "a": 1.10}', '"\\u0000"', "[1,\n 2e5]", "null", '""', "{ }"]
    with Store(dsn) as store:
        store.add_table("public.j")
        with store.watch("public.j") as stream:
            for number, text in enumerate(texts):
                sql.execute("INSERT INTO j VALUES (%s, %s::text::json)", [number, text])
            events = take(stream, len(texts))
    for number, (event, text) in enumerate(zip(events, texts, strict=True)):
        assert f'"data":{{"id":{number},"v":{text}}}'.encode() in event.to_json()
    assert images(events[1]) == (None, {"id": 1, "v": "\0"})


def test_text_that_no_document_can_have_is_written_in_events(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE public.j (id int PRIMARY KEY, v json, n numeric)")
    with Store(dsn, decimals=True) as store:
        store.add_table("public.j")
        with store.watch("public.j") as stream:
            sql.execute("""INSERT INTO j VALUES (1, '{"\\u0000": ["\\ud800", 1]}', 1.10)""")
            sql.execute("""UPDATE j SET v = '{"a": ["\\u0000\\ud800", null]}', n = 1.20""")
            events = take(stream, 2)
        for event in events:
            before = event.to_json()
            assert event.to_dict()["full_document"]["data"]["n"].as_tuple().digits[:1] == (1,)
            assert json.loads(event.to_json()) == json.loads(before)
    described = json.loads(events[1].to_json())["update_description"]
    assert described["updated_fields"] == {"n": 1.2, "v.a": ["\0\ud800", None]}
    assert described["removed_fields"] == ["v.\0"]


def test_tables_of_one_column_of_many_and_of_empty_texts(dsn: str, sql: psycopg.Connection) -> None:
    many = ", ".join(f"c{n} int" for n in range(1, 1_600))
    sql.execute("CREATE TABLE public.one (id text PRIMARY KEY)")
    sql.execute(f"CREATE TABLE public.many (id int PRIMARY KEY, {many})".encode())
    with Store(dsn) as store:
        store.add_table("public.one")
        store.add_table("public.many")
        with store.watch("public.one", "public.many") as stream:
            sql.execute("INSERT INTO one VALUES ('')")
            sql.execute("UPDATE one SET id = ' '")
            sql.execute("DELETE FROM one")
            sql.execute("INSERT INTO many (id, c7, c1599) VALUES (1, 7, 8)")
            sql.execute("UPDATE many SET c7 = NULL")
            sql.execute("DELETE FROM many")
            events = take(stream, 7)
    assert [event.document_id for event in events] == ["", "", " ", " ", "1", "1", "1"]
    assert [images(event) for event in events[:4]] == [
        (None, {"id": ""}),
        ({"id": ""}, None),
        (None, {"id": " "}),
        ({"id": " "}, None),
    ]
    row = dict.fromkeys(["id", *(f"c{n}" for n in range(1, 1_600))]) | {"id": 1, "c7": 7, "c1599": 8}
    assert images(events[4]) == (None, row)
    assert images(events[5]) == (row, row | {"c7": None})
    assert images(events[6]) == (row | {"c7": None}, None)


def test_generated_columns_are_left_out(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute("CREATE TABLE public.g (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    with Store(dsn) as store:
        store.add_table("public.g")
        with store.watch("public.g") as stream:
            sql.execute("INSERT INTO g VALUES (1, 2)")
            sql.execute("UPDATE g SET n = 3")
            sql.execute("DELETE FROM g")
            events = take(stream, 3)
    assert [images(event) for event in events] == [
        (None, {"id": 1, "n": 2}),
        ({"id": 1, "n": 2}, {"id": 1, "n": 3}),
        ({"id": 1, "n": 3}, None),
    ]


def test_row_level_security_hides_nothing_from_streams(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    sql.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch("public.orders") as stream:
            sql.execute("INSERT INTO orders VALUES (1)")
            assert brief(take(stream)) == [("insert", "public.orders", "1")]
            assert stream.next(timeout=0) is None


def test_a_stream_that_falls_behind_reads_tables_again(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch(tables=True, buffer_size=3) as stream:
            sql.execute("INSERT INTO orders SELECT n FROM generate_series(1, 500) n")
            sql.execute("CREATE TABLE late (id int PRIMARY KEY)")
            store.add_table("public.late")
            sql.execute("INSERT INTO late SELECT n FROM generate_series(1, 500) n")
            events = take(stream, 1_001)
    assert [event.document_id for event in events] == [
        *map(str, range(1, 501)),
        None,
        *map(str, range(1, 501)),
    ]


@pytest.mark.usefixtures("both_plugins")  # through pgoutput alone, nobody can tell the table
def test_a_row_that_no_plugin_can_send_concerns_the_streams_of_its_table(dsn: str, sql: psycopg.Connection) -> None:
    sql.execute(UNPRINTABLE_TYPE.encode())
    sql.execute("CREATE TABLE public.files (id int PRIMARY KEY, extra public.unprintable)")
    sql.execute(_ORDERS.encode())
    with Store(dsn) as store:
        for name in ("public.files", "public.orders"):
            store.add_table(name)
        store.create_collection("a")
        with (
            store.watch("public.files") as files,
            store.watch(tables=True) as both,
            store.watch("a", "public.orders") as others,
            store.watch("a", "public.orders", consumer="c") as consumer,
        ):
            with sql.transaction():
                sql.execute("INSERT INTO orders VALUES (1)")
                sql.execute("INSERT INTO files VALUES (1, NULL)")
                sql.execute("INSERT INTO files VALUES (2, '7')")
                sql.execute("INSERT INTO docs.a (id, data) VALUES ('d', '{}')")
                sql.execute("UPDATE orders SET id = 2")
            sql.execute("INSERT INTO orders VALUES (3)")
            expected = [
                ("insert", "public.orders", "1"),
                ("insert", "a", "d"),
                ("delete", "public.orders", "1"),
                ("insert", "public.orders", "2"),
                ("insert", "public.orders", "3"),
            ]
            assert brief(take(others, 5)) == expected
            assert brief(take(consumer, 5)) == expected
            for stream, before in ((files, 1), (both, 2)):
                take(stream, before)
                with pytest.raises(UnreadableChange) as caught:
                    take(stream)
                assert caught.value.collections == ("public.files",)
        store.drop_consumer("c")


@pytest.mark.parametrize("consumer", [None, "c"])
def test_a_snapshot_resumes_though_its_table_was_renamed_meanwhile(
    dsn: str, sql: psycopg.Connection, consumer: str | None
) -> None:
    sql.execute(_ORDERS.encode())
    sql.execute("INSERT INTO orders SELECT n, n FROM generate_series(1, 150) AS n")
    with Store(dsn) as store:
        store.add_table("public.orders")
        with store.watch(tables=True, snapshot=True, consumer=consumer) as stream:
            last = (take(stream, 20))[-1]
            if consumer:
                stream.ack()
        sql.execute("UPDATE orders SET total = -1 WHERE id IN (3, 130)")
        sql.execute("ALTER TABLE orders RENAME TO sales")
        sql.execute("UPDATE sales SET total = -2 WHERE id IN (4, 140)")
        start = None if consumer else last.resume_token
        with store.watch(tables=True, snapshot=True, consumer=consumer, resume_after=start) as stream:
            events = take(stream, 133)
        totals = {event.document_id: image["total"] for event in events if (image := images(event)[1])}
        assert {totals[key] for key in ("3", "130")} == {-1}
        assert {totals[key] for key in ("4", "140")} == {-2}
        assert len(totals) == 132
        if consumer:
            assert store.drop_consumer(consumer)
