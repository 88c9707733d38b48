"""Odd tables in a schema are no collections: streams and consumers go on beside them, with both plugins."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import PgdocError
from tests.security.readers import END, Brief, Readers, brief, read_to_end
from tests.security.test_data_loss import SIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import SharedDatabase

FULL = "ALTER TABLE docs.x REPLICA IDENTITY FULL"
FILL = """INSERT INTO docs.x (id, data) SELECT id, data FROM docs.orders"""
ODD: dict[str, tuple[str, ...]] = {
    "a copy by CREATE TABLE AS": (
        "CREATE TABLE docs.x AS SELECT * FROM docs.orders",
        "INSERT INTO docs.x SELECT * FROM docs.orders",
        "UPDATE docs.x SET version = version + 1",
        "DELETE FROM docs.x",
        "TRUNCATE docs.x",
    ),
    "a copy by LIKE, filled and updated in one transaction": (
        "BEGIN",
        "CREATE TABLE docs.x (LIKE docs.orders INCLUDING ALL)",
        "INSERT INTO docs.x SELECT * FROM docs.orders",
        "UPDATE docs.x SET data = '{\"a\": 1}'",
        "DELETE FROM docs.x",
        "COMMIT",
        FILL,
        "UPDATE docs.x SET data = '{\"a\": 2}'",
        "DROP TABLE docs.x",
    ),
    "a copy by LIKE with before images": (
        "CREATE TABLE docs.x (LIKE docs.orders INCLUDING ALL)",
        FULL,
        FILL,
        "UPDATE docs.x SET data = '{\"a\": 2}'",
        "ALTER TABLE docs.x RENAME TO y",
        "DELETE FROM docs.y",
        "ALTER TABLE docs.y SET SCHEMA public",
        "ALTER TABLE public.y SET SCHEMA docs",
        "DROP TABLE docs.y",
    ),
    "partitions": (
        "CREATE TABLE docs.x (LIKE docs.orders INCLUDING DEFAULTS) PARTITION BY LIST (id)",
        "CREATE TABLE docs.x1 PARTITION OF docs.x DEFAULT",
        "ALTER TABLE docs.x REPLICA IDENTITY FULL",
        "ALTER TABLE docs.x1 REPLICA IDENTITY FULL",
        FILL,
        "UPDATE docs.x SET version = 7",
        "DELETE FROM docs.x",
    ),
    "other types": (
        "CREATE TABLE docs.x (id int, data text, version text, replaced_version bool, created_at date, updated_at int)",
        FULL,
        "INSERT INTO docs.x VALUES (1, 'no json', 'one', true, 'today', 3)",
        "UPDATE docs.x SET data = 'x'",
        "DELETE FROM docs.x",
    ),
    "nothing but NULLs": (
        f"CREATE TABLE docs.x ({re.sub('PRIMARY KEY|NOT NULL|DEFAULT [^,]*', '', SIX)})",
        FULL,
        "INSERT INTO docs.x DEFAULT VALUES",
        "INSERT INTO docs.x (id, data, created_at) VALUES ('', '[]', 'infinity')",
        "UPDATE docs.x SET version = 1",
        "DELETE FROM docs.x",
    ),
    "a renamed column beside extra ones": (
        "CREATE TABLE docs.x (LIKE docs.orders INCLUDING ALL, one int, two text)",
        FULL,
        FILL,
        "ALTER TABLE docs.x RENAME COLUMN data TO datum",
        "ALTER TABLE docs.x RENAME COLUMN one TO data",
        "UPDATE docs.x SET data = 1",
        "DELETE FROM docs.x",
    ),
    "a column that is dropped in the middle of a transaction": (
        "CREATE TABLE docs.x (LIKE docs.orders INCLUDING ALL)",
        FULL,
        "BEGIN",
        FILL,
        "ALTER TABLE docs.x DROP COLUMN version",
        "UPDATE docs.x SET data = '{\"a\": 2}'",
        "COMMIT",
    ),
    "a table with the name of a collection in another schema": (
        "CREATE TABLE public.orders (LIKE docs.orders INCLUDING ALL)",
        "ALTER TABLE public.orders REPLICA IDENTITY FULL",
        "INSERT INTO public.orders SELECT * FROM docs.orders",
        "DELETE FROM public.orders",
    ),
    "strange names": (
        'CREATE TABLE docs."we""ird \\ \'" (LIKE docs.orders INCLUDING ALL)',
        'INSERT INTO docs."we""ird \\ \'" SELECT * FROM docs.orders',
        'CREATE TABLE docs."a\nb.c, *" (LIKE docs.orders INCLUDING ALL)',
        'INSERT INTO docs."a\nb.c, *" SELECT * FROM docs.orders',
        f'CREATE TABLE docs."{"é" * 31}" (LIKE docs.orders INCLUDING ALL)',
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW docs.x AS SELECT * FROM docs.orders",
        "REFRESH MATERIALIZED VIEW docs.x",
        "DROP MATERIALIZED VIEW docs.x",
    ),
    "triggers with the names of pgdoc's": (
        "CREATE TABLE docs.x (LIKE docs.orders INCLUDING ALL)",
        FULL,
        "CREATE TRIGGER pgdoc_before_update BEFORE UPDATE ON docs.x FOR ROW EXECUTE FUNCTION pgdoc.before_update()",
        "CREATE TRIGGER pgdoc_after_insert AFTER DELETE ON docs.x FOR ROW EXECUTE FUNCTION pgdoc.refuse_insert()",
        FILL,
        "UPDATE docs.x SET data = '{\"a\": 2}'",
    ),
    "nothing at all": (),
}
EXPECTED: list[Brief] = [
    ("insert", "orders", "o-2"),
    ("update", "orders", "o-1"),
    ("delete", "orders", "o-2"),
]


@pytest.fixture
def readers(db: SharedDatabase, plugin: str) -> Iterator[Readers]:
    store = db.store("streamer", plugin=plugin, auto_create=False)
    db.store()["orders"].insert("o-1", {"a": 1})
    opened = Readers(store)
    yield opened
    opened.close()


def _change_orders(db: SharedDatabase) -> None:
    with pgdoc.Store(db.dsn()) as store:
        store["orders"].insert("o-2", {})
        store["orders"].update("o-1", {"$inc": {"a": 1}})
        store["orders"].delete("o-2")


def _end(db: SharedDatabase) -> None:
    with pgdoc.Store(db.dsn()) as store:
        store["orders"].insert(END, {})


_OTHER_TABLES = """
SELECT format('DROP %s IF EXISTS %s CASCADE', CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
  oid::regclass)
FROM pg_class WHERE relnamespace IN ('docs'::regnamespace, 'public'::regnamespace) AND relkind IN ('r', 'p', 'm')
  AND oid <> 'docs.orders'::regclass
"""


def _start_again(owner: psycopg.Connection[Any]) -> None:
    """Drop everything beside `orders`, and delete the document `END`."""
    for (statement,) in owner.execute(_OTHER_TABLES.encode()).fetchall():
        owner.execute(statement)
    owner.execute("DELETE FROM docs.orders WHERE id = %s", [END])


@pytest.mark.parametrize(("catalog", "plugin"), [("superuser", "wal2json"), ("owner", "pgoutput")], indirect=True)
def test_streams_and_consumers_go_on_beside(db: SharedDatabase, readers: Readers, plugin: str) -> None:
    owner = db.connect("owner")
    deleted_end: list[Brief] = [("delete", "orders", END)]
    before: list[Brief] = []
    for odd, statements in ODD.items():
        for statement in statements:
            owner.execute(statement.encode())
        _change_orders(db)
        _end(db)
        for kind, events in readers.read().items():
            assert [brief(event) for event in events] == before + EXPECTED, (odd, kind)
        with pgdoc.Store(db.dsn("streamer"), plugin=plugin, auto_create=False) as store:  # checks the server anew
            store.watch().close()
        owner.execute("DELETE FROM docs.orders WHERE id = %s", [END])
        readers.reopen()
        _end(db)
        for kind, events in readers.read().items():
            assert [brief(event) for event in events] == deleted_end, (odd, kind)
        _start_again(owner)
        before = deleted_end


def test_both_plugins_resume_across_it_with_the_same_events(db: SharedDatabase, both_plugins: None) -> None:
    owner = db.connect("owner")
    db.store()["orders"].insert("o-1", {"a": 1})
    live: dict[str, list[bytes]] = {}
    with db.store("streamer", auto_create=False).watch() as stream:
        token = stream.resume_token
        for odd, statements in ODD.items():
            for statement in statements:
                owner.execute(statement.encode())
            _change_orders(db)
            _end(db)
            live[odd] = [event.to_json() for event in read_to_end(stream)]
            _start_again(owner)
    for plugin in ("wal2json", "pgoutput"):
        with db.store("streamer", plugin=plugin, auto_create=False).watch(resume_after=token) as stream:
            assert {odd: [event.to_json() for event in read_to_end(stream)] for odd in ODD} == live
    assert {len(events) for events in live.values()} == {len(EXPECTED), len(EXPECTED) + 1}  # and the deleted `END`


# What an owner can do to a collection. Where there are event triggers, the server may refuse it.
HARMED: dict[str, tuple[str, ...]] = {
    "a renamed column": ("ALTER TABLE docs.users RENAME COLUMN data TO datum",),
    "a dropped column": ("ALTER TABLE docs.users DROP COLUMN version",),
    "another type": ("ALTER TABLE docs.users ALTER COLUMN data TYPE json",),
    "no before images": ("ALTER TABLE docs.users REPLICA IDENTITY DEFAULT",),
    "no replica identity": ("ALTER TABLE docs.users REPLICA IDENTITY NOTHING",),
    "no WAL": ("ALTER TABLE docs.users SET UNLOGGED",),
    "no triggers": ("DROP TRIGGER pgdoc_before_update ON docs.users", "DROP TRIGGER pgdoc_after_insert ON docs.users"),
    "disabled triggers": ("ALTER TABLE docs.users DISABLE TRIGGER USER",),
    "no publication": ("ALTER PUBLICATION pgdoc DROP TABLE docs.users",),
    "a child": (
        "CREATE TABLE docs.child () INHERITS (docs.users)",
        "INSERT INTO docs.child (id, data) VALUES ('c', '{}')",
    ),
    "no key": ("ALTER TABLE docs.users DROP CONSTRAINT users_pkey",),
    "documents that are no objects": (
        "ALTER TABLE docs.users DROP CONSTRAINT pgdoc_data",
        "INSERT INTO docs.users (id, data) VALUES ('u-2', '[1]')",
    ),
    "rows without a document": (
        "ALTER TABLE docs.users ALTER COLUMN data DROP NOT NULL",
        "INSERT INTO docs.users (id, data) VALUES ('u-3', NULL)",
    ),
}
WRITES = (
    "INSERT INTO docs.users (id) VALUES ('u-4')",
    "INSERT INTO docs.users (id, data) VALUES ('u-5', '{}')",
    "UPDATE docs.users SET updated_at = now()",
    "DELETE FROM docs.users",
)


@pytest.mark.parametrize("catalog", ["owner"], indirect=True)  # where no event trigger refuses it
@pytest.mark.parametrize("harm", HARMED)
def test_a_collection_that_its_owner_harms_stops_only_its_own_streams(
    db: SharedDatabase, readers: Readers, plugin: str, harm: str
) -> None:
    """Its own streams end with an error of pgdoc, or report what became of the collection."""
    owner, store = db.connect("owner"), db.store()
    store["users"].insert("u-1", {"a": 1})
    reading = db.store("streamer", plugin=plugin, auto_create=False)
    with reading["users"].watch() as stream:
        for statement in (*HARMED[harm], *WRITES):
            with contextlib.suppress(psycopg.Error):
                owner.execute(statement.encode())
        _change_orders(db)
        _end(db)
        with contextlib.suppress(PgdocError):
            while stream.next(timeout=1) is not None:
                pass
    _check_readers(readers)
    reading["orders"].watch().close()
    assert store["orders"].count() == 2


def _check_readers(readers: Readers) -> None:
    """Those of the other collection go on; those of the whole schema may say that a collection can't be read."""
    for kind, stream in readers.streams.items():
        events: list[Any] = []
        if "schema" in kind:
            with contextlib.suppress(PgdocError):
                events = read_to_end(stream)
            got = [brief(event) for event in events if event.collection == "orders"]
            assert got in ([], EXPECTED), kind
        else:
            assert [brief(event) for event in read_to_end(stream)] == EXPECTED, kind
