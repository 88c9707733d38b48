from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from pgdoc.crud.guard import GuardedQuery, guarded, guarded_query
from pgdoc.crud.statements import (
    CHANGING,
    CLAIMING,
    find_statement,
    lock_first_statement,
    placed_statement,
    write_statement,
)
from pgdoc.sql import statement

TABLE = '"docs"."orders"'
OID = 4_100_000_000

UNGUARDED = {
    ("documents", "guard"),
    ("documents", "copy"),  # comes after `hold`
    ("documents", "first_match"),  # part of a write
    ("documents", "insertion"),
    ("reading", "branch"),  # part of a read
    ("reading", "matching"),
    ("streams", "placed"),  # around a read that has one
}


def sql_of(query: GuardedQuery) -> bytes:
    return guarded(query, OID)


def test_every_block_of_every_file_can_be_read() -> None:
    for file in files("pgdoc.sql").iterdir():
        if file.name.endswith(".sql"):
            names = re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)
            assert names
            for name in names:
                text = statement(file.name.removesuffix(".sql"), name)
                assert text
                assert "--" not in text


def test_every_block_is_used() -> None:
    package = files("pgdoc")
    sources = "".join(path.read_text() for path in Path(str(package)).rglob("*.py"))
    for file in files("pgdoc.sql").iterdir():
        if file.name.endswith(".sql"):
            for name in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE):
                assert f'"{name}"' in sources, f"{file.name}: {name}"


def test_a_block_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        statement("documents", "upsert_many")


@pytest.mark.parametrize("name", ["insert", "update", "upsert", "bulk_upsert", "replace", "replace_upsert", "delete"])
def test_a_write_carries_metadata_only_where_it_is_asked_to(name: str) -> None:
    plain = sql_of(write_statement(name, TABLE, with_metadata=False, change="data || %s"))
    carrying = sql_of(write_statement(name, TABLE, with_metadata=True, change="data || %s"))
    assert b"metadata" not in plain
    assert b"pg_logical_emit_message" in carrying
    assert carrying.count(b"%s") == plain.count(b"%s") + 1
    assert re.search(rb'(FROM|USING) "pgdoc metadata"', carrying)
    assert b"{" not in plain + carrying


@pytest.mark.parametrize("name", ["update", "replace", "delete"])
def test_a_version_is_asked_for_only_where_it_is_given(name: str) -> None:
    assert b"AND version" in sql_of(write_statement(name, TABLE, with_metadata=False, versioned=True))
    assert b"AND version" not in sql_of(write_statement(name, TABLE, with_metadata=False))


def test_an_order_is_there_only_where_it_is_asked_for() -> None:
    assert b"ORDER BY id DESC LIMIT" in sql_of(find_statement("find", TABLE, ("TRUE",), order="id DESC"))
    assert b"ORDER" not in sql_of(find_statement("find", TABLE, ("TRUE",)))
    branches = sql_of(find_statement("find", TABLE, ("TRUE", "FALSE"), order="id DESC", limit=5, skip=2))
    assert branches.count(b"ORDER BY id DESC LIMIT 7)") == 2
    assert branches.endswith(b"ORDER BY id DESC LIMIT 5 OFFSET 2")
    in_turn = sql_of(find_statement("find", TABLE, ("TRUE", "FALSE"), order="id DESC", limit=5, in_turn=True))
    assert in_turn.endswith(b"END   LIMIT 5")
    assert sql_of(find_statement("find", TABLE, ("TRUE", "FALSE"), order="id DESC")).count(b"ORDER BY") == 1


def test_the_first_is_found_in_the_order_asked_for() -> None:
    columns = "id, data, version, created_at, updated_at"
    found = lock_first_statement(TABLE, ["TRUE"], order="id DESC", lock=CLAIMING, in_turn=False)
    assert found.split() == f"SELECT {columns} FROM {TABLE} WHERE TRUE ORDER BY id DESC LIMIT 1 {CLAIMING}".split()
    assert "ORDER" not in lock_first_statement(TABLE, ["TRUE"], order="", lock=CHANGING, in_turn=False)
    several = lock_first_statement(TABLE, ["a", "b"], order="id DESC", lock=CHANGING, in_turn=False)
    assert several.count("ORDER BY id DESC LIMIT 1") == 3
    assert several.count(f"LIMIT 1 {CHANGING}") == 2
    in_turn = lock_first_statement(TABLE, ["a", "b"], order="id DESC", lock=CHANGING, in_turn=True)
    assert in_turn.count("ORDER BY id DESC LIMIT 1") == 2
    assert "ANY" not in in_turn


def test_every_statement_on_the_table_has_one_guard() -> None:
    for file in ("documents", "reading", "streams"):
        path = files("pgdoc.sql") / f"{file}.sql"
        for name in re.findall(r"^-- name: (\w+)$", path.read_text(), re.MULTILINE):
            block = statement(file, name)
            whole = "{table}" in block or "{rows}" in block
            if whole and (file, name) not in UNGUARDED:
                assert block.count("{guard}") == 1, f"{file}.sql: {name}"


def test_a_read_with_a_place_has_the_guard_of_the_read() -> None:
    find = find_statement("find", TABLE, ("TRUE",), order="id", limit=5)
    placed = sql_of(placed_statement(find, 5))
    assert sql_of(find) in placed
    assert placed.count(b"pgdoc.refuse_table") == 1
    assert guarded(placed_statement(find, 5), OID, safe=True).count(b"pgdoc.readable_text") == 1


def test_a_guard_names_the_table_and_its_oid() -> None:
    query = sql_of(find_statement("count", TABLE, ("TRUE",)))
    assert query.count(b'\'"docs"."orders"\'::pg_catalog.regclass::pg_catalog.oid OPERATOR(pg_catalog.=)') == 1
    assert b"'4100000000'::pg_catalog.oid" in query


def test_a_path_can_look_like_the_guard() -> None:
    query = sql_of(
        guarded_query(
            "SELECT {fields} FROM {table} WHERE {guard} AND {c}", TABLE, {"fields": "'{guard}'", "c": "'{guard}'"}
        )
    )
    assert query.count(b"'{guard}'") == 2
    assert query.count(b"refuse_table") == 1
