# Written by .ci/twins.py from tests/integration/_async/test_validation.py: change that file, and run it.
"""A JSON Schema holds for every writer, as far as each can be checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import (
    Collection,
    Store,
    Transaction,
    BulkError,
    BulkIncomplete,
    InvalidInput,
    SchemaViolation,
)
from pgdoc.crud import validation
from pgdoc.errors import DatabaseError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import Bulk, BulkCollection

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["total"],
    "properties": {
        "total": {"type": "integer", "minimum": 0},
        "code": {"type": "string", "pattern": "^[A-Z]+$"},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}},
    },
    "additionalProperties": False,
}
ONE = {"total": 1}
CODE = {"total": 1, "code": "low"}

CHECKED_BY_PGDOC: dict[str, Callable[[Collection], Any]] = {
    "insert": lambda c: c.insert("new", {"total": -1}),
    "insert_many": lambda c: c.insert_many([("new", {"total": 1}), ("bad", {"total": -1})]),
    "replace": lambda c: c.replace("a", {"total": -1}),
    "replace, upsert": lambda c: c.replace("new", {"total": -1}, upsert=True),
    "replace_one": lambda c: c.replace_one({"total": 1}, {"total": -1}),
    "replace_one, upsert": lambda c: c.replace_one({"total": 9}, {"total": -1}, upsert=True),
    # The table does not check the pattern: these are refused before they are sent.
    "replace_one, pattern": lambda c: c.replace_one({"total": 1}, {"total": 1, "code": "low"}),
    "update, upsert, pattern": lambda c: c.update("new", {"$set": CODE}, upsert=True),
    "update, upsert, time": lambda c: c.update("new", {"$set": CODE, "$currentDate": {"lines": True}}, upsert=True),
    "update_one, upsert, pattern": lambda c: c.update_one({"_id": "new", "code": "low"}, {"$set": ONE}, upsert=True),
}
CHECKED_BY_THE_TABLE: dict[str, Callable[[Collection], Any]] = {
    "update": lambda c: c.update("a", {"$inc": {"total": -5}}),
    "update, upsert": lambda c: c.update("new", {"$set": {"total": -5}}, upsert=True),
    "update_one": lambda c: c.update_one({}, {"$unset": {"total": True}}),
    "update_many": lambda c: c.update_many({}, {"$set": {"other": 1}}),
    "update in an array": lambda c: c.update("a", {"$push": {"lines": {"count": 1}}}),
}


def data(store: Store) -> dict[str, Any]:
    return {document.id: document.data for document in store["orders"].find()}


@pytest.mark.parametrize("write", [*CHECKED_BY_PGDOC.values(), *CHECKED_BY_THE_TABLE.values()])
def test_every_write_is_refused(own_schema: dict[str, Any], write: Any) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders", json_schema=SCHEMA)
        orders.insert("a", {"total": 1, "lines": [{"sku": 1}]})
        before = data(store)
        with pytest.raises(SchemaViolation):
            write(orders)
        assert data(store) == before
    with Store(**own_schema) as store:  # a store that did not set it
        with pytest.raises(SchemaViolation):
            write(store["orders"])
        assert data(store) == before


def test_the_error_names_the_path_the_rule_and_the_value(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders", json_schema=SCHEMA)
        with pytest.raises(
            SchemaViolation, match=r"document 'a' of .*'total', -1, breaks the rule minimum: 0"
        ) as found:
            orders.insert("a", {"total": -1})
        error = found.value
        assert (error.document_id, error.path, error.rule, error.value) == ("a", "total", "minimum", -1)
        with pytest.raises(SchemaViolation, match="its data breaks the rule required"):
            orders.insert("a", {})
        orders.insert("a", {"total": 1})
        with pytest.raises(SchemaViolation, match=r"document 'a' of .* would not conform") as found:
            orders.update("a", {"$inc": {"total": -2}})
        assert (found.value.document_id, found.value.path) == ("a", None)


def test_a_bulk_refuses_what_does_not_conform(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
    with Store(**own_schema) as store:
        with store.bulk() as bulk:
            with pytest.raises(SchemaViolation, match="minimum"):
                bulk["orders"].insert("a", {"total": -1})
            bulk["orders"].insert("b", {"total": 1})
        with pytest.raises(BulkError) as found:
            with store.bulk() as bulk:
                bulk["orders"].update("b", {"$set": {"total": "x"}})
        assert isinstance(found.value.__cause__, SchemaViolation)
        assert data(store) == {"b": {"total": 1}}


BULK_UPSERTS: dict[str, Callable[[BulkCollection], Any]] = {
    "update": lambda c: c.update("new", {"$set": CODE}, upsert=True),
    "update_one": lambda c: c.update_one({"_id": "new", "code": "low"}, {"$set": ONE}, upsert=True),
}


def write_after_an_insert(bulk: Bulk, write: Callable[[BulkCollection], Any]) -> None:
    with bulk:
        bulk["orders"].insert("a", ONE)
        write(bulk["orders"])


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("write", BULK_UPSERTS.values(), ids=BULK_UPSERTS)
def test_a_bulk_inserts_nothing_by_an_upsert_that_does_not_conform(
    own_schema: dict[str, Any], write: Callable[[BulkCollection], Any], *, ordered: bool
) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
    with Store(**own_schema) as store:
        bulk = store.bulk(ordered=ordered)
        with pytest.raises(BulkError if ordered else BulkIncomplete) as found:
            write_after_an_insert(bulk, write)
        cause = found.value.failures[0].error if isinstance(found.value, BulkIncomplete) else found.value.__cause__
        assert isinstance(cause, SchemaViolation)
        assert (cause.document_id, cause.path, cause.rule) == ("new", "code", "pattern")
        assert data(store) == ({} if ordered else {"a": ONE})


BULK_WHOLE: dict[str, Callable[[BulkCollection], Any]] = {
    "insert": lambda c: c.insert("b", CODE),
    "replace": lambda c: c.replace("a", CODE),
    "replace, upsert": lambda c: c.replace("b", CODE, upsert=True),
    "replace_one": lambda c: c.replace_one({}, CODE),
    "replace_one, upsert": lambda c: c.replace_one({"_id": "b"}, CODE, upsert=True),
}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("write", BULK_WHOLE.values(), ids=BULK_WHOLE)
def test_a_bulk_refuses_whole_data_that_does_not_conform_before_it_queues_it(
    own_schema: dict[str, Any], write: Callable[[BulkCollection], Any], *, ordered: bool
) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
    with Store(**own_schema) as store:
        with store.bulk(ordered=ordered) as bulk:
            with pytest.raises(SchemaViolation, match="pattern"):
                write(bulk["orders"])
            bulk["orders"].insert("a", ONE)
        assert data(store) == {"a": ONE}


def test_an_upsert_changes_a_document_that_matches_even_if_what_it_would_insert_does_not_conform(
    own_schema: dict[str, Any],
) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders", json_schema=SCHEMA)
        orders.insert("a", ONE)
        code = {"$set": {"code": "A"}}  # without `total`
        with pytest.raises(SchemaViolation, match="required"):
            orders.update("b", code, upsert=True)
        with pytest.raises(SchemaViolation, match="required"):
            orders.update_one({"_id": "b"}, code, upsert=True)
        orders.update("a", code, upsert=True)
        orders.update_one({"_id": "a"}, {"$set": {"code": "B"}}, upsert=True)
        with store.bulk() as bulk:
            bulk["orders"].insert("c", ONE)
            bulk["orders"].update("c", code, upsert=True)
            bulk["orders"].update_one({"_id": "c"}, {"$set": {"code": "B"}}, upsert=True)
        assert data(store) == {"a": {"total": 1, "code": "B"}, "c": {"total": 1, "code": "B"}}


def plain(value: Any) -> Any:
    return value.real if isinstance(value, complex) else value


def test_the_forms_that_are_stored_are_compared(own_schema: dict[str, Any]) -> None:
    rules = {"at": {"type": "string", "pattern": "Z$"}, "sum": {"type": "number", "multipleOf": 0.5}}
    with Store(**own_schema, decimals=True, encoder=plain) as store:
        events = store.create_collection("events", json_schema={"properties": rules})
        events.insert("a", {"at": datetime(2026, 1, 2, tzinfo=UTC), "sum": Decimal("1.50")})
        events.update("b", {"$set": {"sum": Decimal("2.5")}}, upsert=True)
        with pytest.raises(SchemaViolation, match="multipleOf"):
            events.insert("c", {"sum": 1.25 + 0j})
        with pytest.raises(SchemaViolation, match="multipleOf"):
            events.update("c", {"$set": {"sum": Decimal("1.25")}}, upsert=True)
        assert [error for error in events.validate()] == []
        assert [error.path for error in events.validate({"properties": {"sum": {"maximum": 2}}})] == ["sum"]


def test_sql_is_refused_as_far_as_the_table_can_tell(own_schema: dict[str, Any], sql: psycopg.Connection) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
        insert = f'INSERT INTO "{own_schema["schema"]}".orders (id, data) VALUES (%s, %s)'
        for bad in ({"total": -1}, {"total": 1.5}, {}, {"total": 1, "x": 1}, {"total": 1, "lines": [{"sku": 1}, {}]}):
            with pytest.raises(psycopg.errors.CheckViolation, match="pgdoc_schema"):
                sql.execute(insert, ["a", json.dumps(bad)])
        sql.execute(insert, ["a", '{"total": 1.0, "code": "lower"}'])  # a pattern is checked by pgdoc alone
        found = [(error.document_id, error.path, error.rule) for error in store["orders"].validate()]
        assert found == [("a", "code", "pattern")]


def test_documents_that_exist_stay_until_they_are_written(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store["orders"]
        orders.insert_many([("a", {"total": -1}), ("b", {"total": 2}), ("c", {})])
        assert [error for error in orders.validate()] == []
        assert [error.document_id for error in orders.validate(SCHEMA)] == ["a", "c"]
        orders.set_limits(json_schema=SCHEMA)
        assert [error.document_id for error in orders.validate()] == ["a", "c"]
        with pytest.raises(SchemaViolation):
            orders.update("a", {"$set": {"total": -2}})
        orders.update("a", {"$set": {"total": 0}})
        orders.delete("c")
        assert [error for error in orders.validate()] == []


def test_a_schema_can_be_changed_and_removed_and_the_size_limit_stays(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders", json_schema=SCHEMA, max_size=1000)
        orders.set_limits(json_schema={"type": "object", "required": ["x"]})
        with pytest.raises(SchemaViolation):
            orders.insert("a", {"total": 1})
        orders.set_limits(json_schema=None)
        orders.insert("a", {"total": -1})
        orders.set_limits(json_schema=SCHEMA, max_size=500)
        with pytest.raises(SchemaViolation):
            orders.insert("b", {})
        with store.transaction() as tx:
            tx["orders"].set_limits(json_schema=None)
            tx["orders"].insert("b", {})
        assert set(data(store)) == {"a", "b"}


def test_a_schema_that_is_rolled_back_binds_nobody(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["orders"].insert("a", {})
        tx = store.transaction()
        with pytest.raises(SchemaViolation, match="required"):
            set_and_break(tx)
        store["orders"].insert("b", {})
        with store.transaction() as tx:
            tx["orders"].set_limits(json_schema={"required": ["z"]})
        with pytest.raises(SchemaViolation, match="required"):
            store["orders"].insert("c", {})


def set_and_break(transaction: Transaction) -> None:
    with transaction as tx:
        tx["orders"].set_limits(json_schema={"required": ["z"]})
        tx["orders"].insert("b", {})


def test_a_schema_follows_a_rename(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
        renamed = store.rename_collection("orders", "old")
        with pytest.raises(SchemaViolation):
            renamed.insert("a", {})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, "not valid at type"),
        ({"properties": {"a": {"minimum": "1"}}}, "not valid at properties.a.minimum"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "knows https://json-schema.org/draft/2020-12/schema only",
        ),
        ({"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "does not fetch"),
        ({"$ref": "#/$defs/missing"}, "no schema is there"),
        ({"items": {"bsonType": "int"}}, "bsonType.*use `type`"),
        ([], "must be a mapping"),
    ],
)
def test_a_schema_is_checked_before_it_is_set(own_schema: dict[str, Any], schema: Any, message: str) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidInput, match=message):
            store.create_collection("orders", json_schema=schema)
        assert store.collections() == []


def test_without_the_package_the_error_names_the_extra(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    validation.read_json_schema.cache_clear()
    with Store(**own_schema) as store:
        with pytest.raises(MissingExtra, match=r"pgdoc\[validation\]"):
            store["orders"].insert("a", {"total": 1})
        assert store["orders"].count({}) == 0


def test_a_schema_that_sql_has_broken_is_an_error_that_says_so(
    own_schema: dict[str, Any], sql: psycopg.Connection
) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders", json_schema=SCHEMA)
        sql.execute(f"COMMENT ON CONSTRAINT pgdoc_schema ON \"{own_schema['schema']}\".orders IS 'no JSON'")
    with Store(**own_schema) as store:
        with pytest.raises(DatabaseError, match=r"can't be read.*Set it again"):
            store["orders"].insert("a", {"total": 1})
