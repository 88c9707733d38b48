from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from pgdoc.reading import reading_statement
from pgdoc.sql import statement
from pgdoc.statements import first_condition, write_statement

TABLE = '"docs"."orders"'


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


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        statement("documents", "upsert_many")


@pytest.mark.parametrize("name", ["insert", "update", "upsert", "bulk_upsert", "replace", "replace_upsert", "delete"])
def test_a_write_carries_metadata_only_where_it_is_asked_to(name: str) -> None:
    plain = write_statement(name, TABLE, carry=False, change="data || %s")
    carrying = write_statement(name, TABLE, carry=True, change="data || %s")
    assert b"carried" not in plain
    assert b"pg_logical_emit_message" in carrying
    assert carrying.count(b"%s") == plain.count(b"%s") + 1
    assert re.search(rb"(FROM|USING) carried", carrying)
    assert b"{" not in plain + carrying


@pytest.mark.parametrize("name", ["update", "replace", "delete"])
def test_a_version_is_asked_for_only_where_it_is_given(name: str) -> None:
    assert b"version = %s" in write_statement(name, TABLE, carry=False, versioned=True)
    assert b"version = %s" not in write_statement(name, TABLE, carry=False)


def test_an_order_is_there_only_where_it_is_asked_for() -> None:
    assert b"ORDER BY id DESC LIMIT" in reading_statement("find", TABLE, condition="TRUE", order="id DESC")
    assert b"ORDER" not in reading_statement("find", TABLE, condition="TRUE")


def test_the_first_is_found_in_the_order_asked_for() -> None:
    found = first_condition(TABLE, condition="TRUE", order="id DESC", skip_locked="SKIP LOCKED")
    assert found == f"id = (SELECT id FROM {TABLE} WHERE TRUE ORDER BY id DESC LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)"
    assert "ORDER" not in first_condition(TABLE, condition="TRUE", order="")
