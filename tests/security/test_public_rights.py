"""What every role may do with the catalog is what `docs/reference/server.md` lists, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc.database.migrate import migrate
from pgdoc.errors import DatabaseError

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "server.md").read_text(encoding="utf-8")


def documented(line: str) -> set[str]:
    """Return the names in code style in the row of the page's table that starts so."""
    (row,) = re.findall(rf"^\| {line} \|(.*)\|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def names(db: SharedDatabase, query: str) -> set[str]:
    return {name for (name,) in db.connect("stranger").execute(query.encode()).fetchall()}


RELATIONS = """
SELECT relname::text FROM pg_class
WHERE relnamespace = 'pgdoc'::regnamespace AND relkind IN ('r', 'v', 'S', 'm') AND {}
"""
TRIGGERS = "prorettype IN ('trigger'::regtype, 'event_trigger'::regtype)"
WRITING = f"""
SELECT proname::text FROM pg_proc
WHERE pronamespace = 'pgdoc'::regnamespace AND has_function_privilege(oid, 'EXECUTE')
  AND (provolatile = 'v' OR prosecdef) AND NOT {TRIGGERS}
"""


def test_every_role_may_read_the_tables_that_are_listed(db: SharedDatabase) -> None:
    assert names(db, RELATIONS.format("has_table_privilege(oid, 'SELECT')")) == documented("read, as every role may")


def test_no_role_may_write_a_table_of_the_catalog(db: SharedDatabase) -> None:
    others = "has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"
    sequences = "has_sequence_privilege(oid, 'USAGE, UPDATE')"
    assert names(db, RELATIONS.format(f"CASE WHEN relkind = 'S' THEN {sequences} ELSE {others} END")) == set()


def test_every_role_may_execute_the_functions_that_are_listed_and_those_that_cannot_write(db: SharedDatabase) -> None:
    assert names(db, WRITING) == documented("execute, as every role may")


def test_the_trigger_functions_that_an_owner_of_a_table_attaches_are_listed(db: SharedDatabase) -> None:
    query = (
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'pgdoc'::regnamespace "
        f"AND {TRIGGERS} AND has_function_privilege(oid, 'EXECUTE')"
    )
    assert names(db, query) == documented("attach to own tables, as every role may")


@pytest.mark.parametrize("table", ["consumers", "consumer_progress", "owners"])
def test_ids_of_documents_in_positions_are_not_readable(db: SharedDatabase, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect("stranger").execute(f"SELECT FROM pgdoc.{table}")
    with pytest.raises(DatabaseError, match="permission denied"):
        db.store("stranger").consumers()


def test_each_role_can_do_its_work_with_these_rights(db: SharedDatabase, plugin: str) -> None:
    writer, reader = db.store("writer")["orders"], db.store("reader")["orders"]
    db.store()["orders"].create_index("items.x")
    writer.insert("o-1", {"items": [{"x": 1}, {"x": [2]}]})
    writer.update("o-1", {"$push": {"items": {"x": 3}}, "$currentDate": {"at": True}})
    assert reader.count({"items.x": {"$gte": 3}, "at": {"$type": "string"}}) == 1
    assert [document.id for document in reader.find({}, sort="-items.x", fields=["items"])] == ["o-1"]
    streamer = db.store("streamer", plugin=plugin)
    with streamer["orders"].watch(snapshot=True) as stream:
        assert next(stream).document_id == "o-1"
    with streamer.watch(consumer="billing") as stream:
        writer.update("o-1", {"$set": {"a": 1}})
        stream.ack(next(stream))
    assert [consumer.name for consumer in streamer.consumers()] == ["billing"]
    assert streamer.drop_consumer("billing")


def test_a_role_creates_collections_once_it_may_register_them(db: SharedDatabase) -> None:
    store, creator = db.store("creator"), db.roles["creator"]
    with pytest.raises(DatabaseError, match=f"role {creator} may not register collections.*GRANT EXECUTE ON FUNCTION"):
        store.create_collection("made")
    db.connect().execute(f"GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO {creator}")
    if db.catalog == "owner":
        db.connect("superuser").execute(f"GRANT {creator} TO {db.roles['owner']}")
    store["made"].insert("m-1", {"a": 1})
    store["made"].create_index("a")
    assert db.store().collections() == ["made", "orders"]
    assert store.drop_collection("made")


@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
def test_init_takes_back_what_a_restore_without_privileges_gave_to_every_role(db: SharedDatabase) -> None:
    before = names(db, WRITING)
    db.connect("superuser").execute("UPDATE pg_proc SET proacl = NULL WHERE pronamespace = 'pgdoc'::regnamespace")
    assert names(db, WRITING) > before
    migrate(db.dsn("owner"))
    assert names(db, WRITING) == before
