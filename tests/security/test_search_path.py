"""Nothing that pgdoc runs calls another role's function, operator or type, whatever the search_path."""

from __future__ import annotations

import logging
import re
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import pgdoc
from pgdoc.cli.doctor import examine_server
from pgdoc.crud.statements import write_statement
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.errors import InvalidUpdate
from pgdoc.query import compile_filter, compile_sort, compile_update, parse_filter, parse_sort, parse_update
from pgdoc.query.indexes.plan import branches, by_key
from pgdoc.sql import statement
from pgdoc.sql.qualify import qualified
from pgdoc.telemetry.database import DatabaseMetrics
from tests import json_values
from tests.commands import pgdoc_command
from tests.indexed import every_index
from tests.security.hostile import create_hostile_schema, put_first, was_called

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server
    from tests.security.conftest import SharedDatabase

FIXED = "-c search_path=pg_catalog"

FILTERS: list[dict[str, Any]] = [
    {"_id": "d-1"},
    {"_id": {"$in": ["d-1", "d-2"]}},
    {"_id": {"$gt": "d-1", "$regex": "^d"}},
    {"n": 1},
    {"n": {"$ne": 1, "$gte": 0, "$lt": 99}},
    {"n": {"$in": list(range(20))}},
    {"n": {"$nin": [1, [2], None]}},
    {"n": {"$mod": [2, 1]}},
    {"n": {"$exists": True, "$type": ["int", "long", "double"]}},
    {"s": {"$regex": "^a.c"}},
    {"s": {"$gt": "a" * 100}},
    {"a": {"$size": 2, "$all": [1, 2]}},
    {"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}},
    {"items": {"$elemMatch": {"x": 1, "y.0": {"$gt": 1}}}},
    {"a.0": {"$gt": {"b": 1}}},
    {"a.0": {"$in": [1, "x"]}},
    {"a.1": {"$exists": False}},
    {"items": {"x": 1}},
    {"items.x": {"$gte": [1]}},
    {"$or": [{"n": None}, {"$nor": [{"s": "abc"}, {"t.u": {"$not": {"$lte": 1}}}]}]},
]
UPDATES: list[dict[str, Any]] = [
    {"$set": {"n": 2, "t.u.v": [1], "a.3": 1}, "$unset": {"x": 1, "t.w": 1}},
    {"$inc": {"n": 1, "new.m": 2}, "$mul": {"f": 1.5, "new.p": 2}},
    {"$min": {"n": 1, "s": "abb"}, "$max": {"f": 99, "o": {"a": 1, "b": [1, True, None]}}},
    {"$rename": {"s": "renamed", "t.u": "moved"}},
    {"$currentDate": {"at": True}},
    {"$push": {"a": 5}},
    {"$push": {"items": {"$each": [{"x": 2}, {"x": 0}], "$sort": {"x": -1}, "$slice": 3, "$position": 0}}},
    {"$push": {"a": {"$each": [9, "z", {"k": 1}, [1], True], "$sort": 1, "$slice": -6}}},
    {"$addToSet": {"a": {"$each": [1, 7]}}},
    {"$pull": {"items": {"x": {"$gte": 2}}}},
    {"$pull": {"a": {"$lt": 2}}},
    {"$pullAll": {"a": [7, 9]}},
    {"$pop": {"a": 1}},
    {"$pop": {"items": -1}},
    {"$inc": {"items.$[].x": 1}},
    {"$unset": {"a.0": 1, "items.$[].x": 1}},
    {"$bit": {"n": {"and": 7, "or": 1}, "bits": {"xor": 3}}},
]
DOCUMENT = {
    "n": 1,
    "s": "abc",
    "f": 2.5,
    "a": [1, 2],
    "t": {"u": {}, "w": None},
    "o": {"a": 1, "b": [1, True, "x"]},
    "items": [{"x": 1, "y": [2]}, {"x": 3}],
}
SORTS = [None, "n", ["-s", "_id"], ["t.u", "-a.0"], ["o", "items"]]
INDEXED = [("n",), ("s", "-t.u"), ("a",), ("o",), ("items.x",), ("$**",)]


@pytest.fixture
def trap(db: SharedDatabase) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to a database whose sessions find the hostile schema first."""
    with db.connect("owner", options=FIXED) as owner:
        if db.catalog == "owner":
            owner.execute(f"GRANT CREATE ON DATABASE {owner.info.dbname} TO CURRENT_USER")
    admin = db.connect("superuser", options=FIXED)
    create_hostile_schema(admin)
    put_first(admin, db.name, list(db.roles.values()))
    with pytest.raises(psycopg.errors.RaiseException, match="caught"):
        db.connect("writer").execute("SELECT now()")
    assert was_called(admin)
    admin.execute("ALTER SEQUENCE hostile.calls RESTART")
    yield admin
    assert not was_called(admin)


ROLE_LACKS_A_RIGHT = re.compile(r'^history is not kept yet: role "pgdoc_owner_\w+" may not replicate')


@pytest.fixture(autouse=True)
def no_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Threads of pgdoc log what goes wrong, and continue."""
    yield
    logged = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING
        and record.name != "pgdoc.migrate"
        and not ROLE_LACKS_A_RIGHT.search(record.getMessage())
    ]
    assert not logged


def test_documents(db: SharedDatabase, trap: psycopg.Connection[Any]) -> None:
    owner, writer = db.store()["orders"], db.store("writer")["orders"]
    for round_ in range(2):
        writer.insert_many((f"d-{number}", {**DOCUMENT, "n": number}) for number in range(30))
        for wanted in FILTERS:
            for sort in SORTS:
                writer.find_one(wanted, sort=sort, fields=["n", "items.x"] if sort else ["-t.u"])
            documents = list(writer.find(wanted, sort="n", limit=5, skip=1))
            assert writer.count(wanted) >= len(documents)
            writer.explain(wanted, sort="n")
            writer.distinct("items.x", wanted)
        for changes in UPDATES:
            writer.update("d-1", changes)
            writer.update_one({"n": {"$gte": 0}}, changes, sort="n")
            writer.update_one({"n": {"$gte": 0}}, {"$set": {"claimed": 1}}, skip_locked=True)
            writer.update_many({"n": {"$lt": 5}}, changes)
        elements: dict[str, Any] = {"$inc": {"items.$.x": 1, "items.$[large].x": 2, "items.$[odd].y.$[]": 1}}
        array_filters: list[dict[str, Any]] = [{"large.x": {"$gt": 1e9}}, {"odd": {"$elemMatch": {"x": [1, {}]}}}]
        for matched in ({"items.x": 1}, {"items": {"$elemMatch": {"x": 1}}}, {"$or": [{"n": 9}, {"items.x": 3}]}):
            writer.update_one(matched, elements, array_filters=array_filters)
            writer.update_many(matched, elements, array_filters=array_filters)
        writer.update_one({"_id": "by filter", "k": 1}, {"$inc": {"n": 1}}, upsert=True)
        writer.update_one({"k": 1}, {"$inc": {"n": 1}}, upsert=True, return_document="before")
        writer.replace_one({"_id": "replaced", "k": 2}, {"k": 2}, upsert=True)
        writer.update("new", {"$set": {"n": 1}}, upsert=True)
        writer.replace("d-2", {"n": 5})
        writer.replace("r-1", {"n": 5}, upsert=True)
        current = writer.get("d-2")
        assert current is not None
        writer.update("d-2", {"$inc": {"n": 1}}, if_version=current.version)
        assert writer.delete("d-3")
        writer.delete_one({"n": {"$gt": 3}}, sort="-n")
        assert writer.delete_many({}) > 0
        if round_ == 0:
            for paths in INDEXED:
                owner.create_index(*paths, progress=lambda _: None)
            owner.create_index("_id", "n", unique=True, where={"n": {"$gt": 5}})
    assert len(owner.indexes()) == len(INDEXED) + 1
    for index in owner.indexes():
        owner.drop_index(index.name)


def test_bulks_transactions_and_collections(db: SharedDatabase, trap: psycopg.Connection[Any]) -> None:
    with db.store("writer").bulk({"by": "ann"}) as bulk:
        orders = bulk["orders"]
        orders.insert("b-1", DOCUMENT)
        orders.update("b-1", {"$inc": {"n": 1}}, if_version=1)
        orders.update("b-2", {"$set": {"n": 1}}, upsert=True)
        orders.update_one({"n": 1}, {"$set": {"m": 1}}, sort="n", skip_locked=True)
        orders.update_many({"items.x": 1}, {"$push": {"a": 1}})
        orders.replace("b-2", {}, upsert=True)
        orders.delete_one({"n": 99})
        orders.delete_many({"n": {"$mod": [7, 3]}})
        orders.delete("b-9")
    with db.store("writer").transaction(metadata={"by": "ann"}, isolation="serializable") as tx:
        tx["orders"].insert("t-1", DOCUMENT)
        tx["orders"].insert_many([("t-2", {}), ("t-3", {})])
        assert len(list(tx["orders"].find({"_id": {"$gt": "t"}}))) == 3
    store = db.store()
    store["made"].insert("m-1", {})
    store.create_collection("other")
    store.rename_collection("other", "renamed")
    assert store.collections() == ["made", "orders", "renamed"]
    assert store.drop_collection("renamed")


def test_streams_and_consumers(db: SharedDatabase, trap: psycopg.Connection[Any], plugin: str) -> None:
    roles = ["owner", "streamer"] if db.catalog == "superuser" else ["streamer"]
    writer = db.store("writer")["orders"]
    for role in roles:
        store = db.store(role, plugin=plugin)
        writer.insert(f"{role}-1", DOCUMENT)
        with store["orders"].watch(snapshot=True, where={"full_document.data.n": {"$gte": 0}}) as stream:
            token = next(stream).resume_token
        with store["orders"].watch(snapshot=True, resume_after=token) as stream:
            writer.insert(f"{role}-2", DOCUMENT)
            token = next(event for event in stream if event.document_id == f"{role}-2").resume_token
        writer.delete(f"{role}-2")
        with store["orders"].watch(resume_after=token) as stream:
            assert next(stream) is not None
        with store.watch(consumer="billing", snapshot=True) as stream:
            event = next(stream)
            writer.insert(f"{role}-4", {})
            with store.transaction() as tx:
                stream.checkpoint(event, tx)
            stream.ack(next(stream))
            (status,) = store.consumers()
            assert status.owner_pid is not None
        with store.watch(consumer="billing", snapshot=True) as stream:
            writer.insert(f"{role}-3", {"n": 1})
            assert next(stream) is not None
        store.status()
        store.history()
        assert store.drop_consumer("billing")
    db.store().set_history(time=timedelta(minutes=5), size=1 << 20)


def test_doctor_the_commands_and_migrations(db: SharedDatabase, trap: psycopg.Connection[Any], tmp_path: Path) -> None:
    dsn = db.dsn()
    subjects = {finding.subject: finding.text for finding in examine_server(dsn)}
    user = sql.Identifier(str(conninfo_to_dict(dsn)["user"]))
    trap.execute(sql.SQL("GRANT pg_monitor TO {}").format(user))
    with closing(DatabaseMetrics(dsn)) as metrics:
        metrics.scrape()
        assert not metrics.problems
    of_streams = {"streams"} if db.catalog == "superuser" else set()  # the other owner may not replicate
    assert {"catalog", "history", *of_streams} <= subjects.keys()
    assert not [text for text in subjects.values() if "check failed" in text or "caught" in text]
    lines = tmp_path / "lines.json"
    lines.write_text('{"_id": "c-1", "n": 1}\n{"_id": "c-2"}\n')
    for arguments in (
        ["init"],
        ["status"],
        ["collections"],
        ["consumers"],
        ["history"],
        ["load", str(lines), "loaded"],
        ["dump", "loaded"],
        ["doctor"],
        ["grant", db.roles["stranger"], "--as", "reader", "--run"],
        ["grant", db.roles["stranger"], "--as", "owner"],
    ):
        done = pgdoc_command(*arguments, "--dsn", dsn)
        assert "hostile" not in done.stderr + done.stdout, done
        assert "caught" not in done.stderr + done.stdout, done
        assert done.returncode in {0, 1}, done
    downgrade(dsn, "0006")
    migrate(dsn)


def test_triggers_fired_by_a_plain_writer(db: SharedDatabase, trap: psycopg.Connection[Any]) -> None:
    store = db.store()
    store["orders"].create_index("a", unique=True)
    writer = db.connect("writer")
    writer.execute("INSERT INTO docs.orders (id, data) VALUES ('o-1', '{\"a\": [1]}')")
    writer.execute("UPDATE docs.orders SET data = '{\"a\": 2}', version = 9")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="cannot change the id"):
        writer.execute("UPDATE docs.orders SET id = 'o-2'")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="sets a version"):
        writer.execute("INSERT INTO docs.orders (id, data, version) VALUES ('o-3', '{}', 7)")
    owner = db.connect()
    owner.execute("ALTER TABLE docs.orders RENAME TO moved")
    owner.execute("ALTER SCHEMA docs RENAME TO elsewhere")
    owner.execute("DROP TABLE elsewhere.moved")


_FUNCTIONS = """
SELECT p.oid::regprocedure::text, p.prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'pgdoc'::regnamespace AND l.lanname <> 'internal' AND p.prosqlbody IS NULL
  AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
"""
PER_ROW = set(
    re.findall(
        r"\w+",
        "add_to_set_at before_update bit_at bound_at candidates change_tree change_value collated collated_part "
        "compare computed could_be_at decomposed decomposed_piece elements_at ends_at evaluate exclude expiry_time "
        "folded found_keys include increment_at key_span multiply_at narrow nested_key number_key push_at "
        "readable_text readable_time referred rename_at scalar_key set_at slice sort_key sort_parts sort_rest "
        "tested_values time_of unique_rest unset_at value_at values_at",
    )
)
"""The functions that run for each row, which SET search_path would slow down. Their bodies are qualified."""

_DECLARATION = re.compile(r" (pg_catalog\.\w+|pgdoc\.\w+|bigint|integer|boolean|numeric)(\[\])?( :=|$)")


def test_each_function_of_the_catalog_is_bound_has_a_search_path_or_is_qualified(db: SharedDatabase) -> None:
    found = dict(db.connect("superuser", options=FIXED).execute(_FUNCTIONS).fetchall())
    assert {name.partition("(")[0].removeprefix("pgdoc.") for name in found} == PER_ROW
    for body in found.values():
        declared, _, rest = body.rpartition("\nBEGIN\n")
        declarations = re.sub(r"--.*", "", declared.partition("DECLARE")[2])
        for line in filter(None, map(str.strip, re.split(r";\s", declarations))):
            assert _DECLARATION.search(line.partition("\n")[0].rstrip(";")), line
        code = re.sub(r"RAISE .*?;", "", rest, flags=re.DOTALL)
        code = re.sub(r"\b(FOR [\w, ]+ )IN\b", r"\1LOOPING", code)
        for part in (code, declared):
            assert qualified(part) == part


@pytest.fixture(scope="module")
def bound(server: Server, template: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database with the hostile schema first, whose changes are rolled back."""
    from tests.fixtures.fix_server import _connect_admin, _database  # noqa: PLC0415

    with _connect_admin(server) as admin, _database(server, admin, template, "bound") as name:
        with pgdoc.Store(server.conninfo_for(name)) as store:
            store.migrate()
            store["orders"].insert("o-1", {})
        with psycopg.connect(server.conninfo_for(name), options=FIXED, autocommit=True) as prepared:
            create_hostile_schema(prepared)
        with psycopg.connect(server.conninfo_for(name), options="-c search_path=hostile,pg_catalog") as connection:
            yield connection


def foreign_objects(bound: psycopg.Connection[Any], text: str) -> list[str]:
    """Bind a statement under the hostile path, and return what it refers to besides pg_catalog, pgdoc and docs."""
    with bound.transaction(force_rollback=True):
        bound.execute(f"CREATE FUNCTION pgdoc.bound() RETURNS void BEGIN ATOMIC {text}; END".encode())
        rows = bound.execute(
            "SELECT o.identity FROM pg_catalog.pg_depend, pg_catalog.pg_identify_object(refclassid, refobjid, 0) AS o "
            "WHERE classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass"
            " AND objid OPERATOR(pg_catalog.=) 'pgdoc.bound'::pg_catalog.regproc"
        ).fetchall()
    return [name for (name,) in rows if "hostile" in name]


PARTS_OF_FIRST_WRITES = {"write_first", "insertion", "insert_first"} | {
    f"{name}_{part}"
    for names, parts in (
        (("update_one", "replace_one"), ("set", "differs")),
        (("result", "inserted"), ("after", "before", "counts")),
    )
    for name in names
    for part in parts
}
FOLDER = Path(pgdoc.__file__).parent / "sql"
BLOCKS = [
    (path.stem, name)
    for path in sorted(FOLDER.glob("*.sql"))
    for name in re.findall(r"^-- name: (\w+)$", path.read_text(), re.MULTILINE)
    if path.stem != "documents" or name not in PARTS_OF_FIRST_WRITES
]
CLAUSES = {
    "at": "'0/0'::pg_catalog.pg_lsn",
    "text_of": "pg_catalog.text",
    "table": "docs.orders",
    "guard": "TRUE",
    "oid": "1",
    "condition": "TRUE",
    "matched": "NULL",
    "change": "data",
    "first": "SELECT id, data, version, created_at, updated_at FROM docs.orders",
    "fields": "data",
    "rows": "docs.orders",
    "values": "pgdoc.values_at(data, '{a}')",
    "with_metadata_and": "WITH",
    "nulls": "NULL",
    "found": "SELECT id FROM docs.orders",
    "group": "data",
    "value": "data",
    "schema": "'docs'",
    "slot": "'pgdocb_1'",
    "before": "'1'",
}


def bindable(file: str, name: str) -> str | None:
    return filled_in(statement(file, name), name)


def filled_in(text: str, name: str) -> str | None:
    text = re.sub(r"%s|%\(\w+\)s", "NULL", text.replace("%%", "%"))
    clauses = {**CLAUSES, "first": "NULL"} if "upsert" in name else CLAUSES
    text = (
        re.sub(r"\{(\w+)\}", lambda found: clauses.get(found[1], ""), text)
        .replace("{{", "{")
        .replace("}}", "}")
        .strip()
    )
    whole = text.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")) and name != "with_metadata"
    return text if whole else None


def test_most_blocks_can_be_bound() -> None:
    left = [name for file, name in BLOCKS if bindable(file, name) is None]
    assert len(left) < len(BLOCKS) / 6, left


@pytest.mark.parametrize(("file", "name"), [block for block in BLOCKS if bindable(*block)])
def test_a_block_refers_to_nothing_foreign(bound: psycopg.Connection[Any], file: str, name: str) -> None:
    assert foreign_objects(bound, bindable(file, name) or "") == []


@pytest.mark.parametrize("name", ["update_one", "replace_one"])
@pytest.mark.parametrize("result", ["after", "before", "counts"])
@pytest.mark.parametrize("seed", [{}, {"seed": "'{}'", "conflict": ""}])
def test_a_write_to_the_first_match_refers_to_nothing_foreign(
    bound: psycopg.Connection[Any], name: str, result: str, seed: dict[str, str]
) -> None:
    first = "SELECT id, data, version, created_at, updated_at FROM docs.orders"
    query = write_statement(name, "docs.orders", with_metadata=True, change="data", first=first, result=result, **seed)
    text = "TRUE".join(query.plain).replace("%s", "NULL")
    assert foreign_objects(bound, text) == []
    assert foreign_objects(bound, "TRUE".join(query.safe).replace("%s", "NULL")) == []


def test_the_insert_of_an_upsert_refers_to_nothing_foreign(bound: psycopg.Connection[Any]) -> None:
    query = write_statement("insert_first", "docs.orders", with_metadata=True, first="NULL")
    assert foreign_objects(bound, "TRUE".join(query.plain).replace("%s", "NULL")) == []


def test_an_unqualified_statement_would_be_found(bound: psycopg.Connection[Any]) -> None:
    for text in ("SELECT now()", "SELECT 1 IN (2)", "SELECT NULL::jsonb", "SELECT FROM pg_class"):
        assert foreign_objects(bound, text) != []
    assert foreign_objects(bound, 'SELECT id COLLATE "C" FROM docs.orders') != []


ELEMENTS: list[tuple[dict[str, Any], list[Any], dict[str, Any]]] = [
    ({"$set": {"a.$": 1}}, [], {"a": {"$gt": 1, "$mod": [2, 0]}}),
    ({"$bit": {"a.$.b": {"or": 1}}}, [], {"$or": [{"a.b": 1, "c": 2}, {"a": {"$elemMatch": {"b": [1]}}}]}),
    ({"$inc": {"a.$[x].b": 1, "a.$[y].b": 1}}, [{"x": {"$regex": "a"}}, {"y.c": {"$in": [1, None]}}], {}),
    ({"$push": {"a.$[].b.$[x]": 1}, "$pull": {"a.$[].c.$[y]": {"$lt": 2}}}, [{"x": 1}, {"y": {"$type": "int"}}], {}),
]


@pytest.mark.parametrize(("wanted", "array_filters", "matched"), ELEMENTS)
def test_a_compiled_update_of_elements_refers_to_nothing_foreign(
    bound: psycopg.Connection[Any], wanted: dict[str, Any], array_filters: list[Any], matched: dict[str, Any]
) -> None:
    update = parse_update(wanted, array_filters=array_filters, matched=parse_filter(matched))
    text = compile_update(update).text.replace("%s", "NULL")
    assert foreign_objects(bound, f"SELECT {text} FROM docs.orders") == []


laws = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@laws
@given(json_values.filters)
def test_a_compiled_filter_refers_to_nothing_foreign(bound: psycopg.Connection[Any], wanted: dict[str, Any]) -> None:
    node = parse_filter(wanted)
    indexes = every_index(node)
    for part in (node, by_key(node, indexes), *branches(node, indexes, None).nodes):
        text = compile_filter(part).text.replace("%s", "NULL")
        assert foreign_objects(bound, f"SELECT FROM docs.orders WHERE {text}") == []


@laws
@given(st.lists(json_values.sort_paths, min_size=1, max_size=3, unique=True))
def test_a_compiled_sort_refers_to_nothing_foreign(bound: psycopg.Connection[Any], paths: list[str]) -> None:
    order = compile_sort(parse_sort(paths)).text
    assert foreign_objects(bound, f"SELECT FROM docs.orders ORDER BY {order}") == []


@laws
@given(json_values.updates)
def test_a_compiled_update_refers_to_nothing_foreign(bound: psycopg.Connection[Any], wanted: dict[str, Any]) -> None:
    try:
        text = compile_update(parse_update(wanted)).text.replace("%s", "NULL")
    except InvalidUpdate:
        return
    assert foreign_objects(bound, f"SELECT {text} FROM docs.orders") == []
