"""The mapping of a table's values agrees with PostgreSQL's `to_json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc.decoding.row_json import ARRAY_ELEMENTS, form_of, form_of_built_in, json_of_value
from tests.column_values import SETTINGS, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for setting in SETTINGS:
            connection.execute(setting.encode())
        yield connection


def _values(connection: psycopg.Connection) -> list[tuple[str, tuple[str, ...]]]:
    """Return the values that the server knows: it may be built without libxml."""
    try:
        connection.execute("SELECT CAST('<a/>' AS xml)")
    except psycopg.errors.FeatureNotSupported:
        return [item for item in VALUES.items() if item[0] != "xml"]
    return list(VALUES.items())


def _disagreements(connection: psycopg.Connection, expressions: list[str]) -> list[tuple[str, str, str]]:
    found = []
    for expression in expressions:
        query = f"SELECT to_json(v)::text, format('%s', v), pg_typeof(v)::oid::int8 FROM (SELECT {expression}) AS t(v)"
        expected, text, oid = connection.execute(query.encode()).fetchone()  # type: ignore[misc]
        if json_of_value(text, form_of_built_in(oid)) != expected:
            found.append((expression, expected, json_of_value(text, form_of_built_in(oid))))
    return found


def test_every_built_in_type_is_written_as_to_json_writes_it(connection: psycopg.Connection) -> None:
    expressions = [f"CAST({value} AS {name})" for name, values in _values(connection) for value in values]
    assert _disagreements(connection, expressions) == []


def test_arrays_are_written_as_to_json_writes_them(connection: psycopg.Connection) -> None:
    expressions = []
    for name, values in _values(connection):
        items = ", ".join(f"CAST({value} AS {name})" for value in values)
        expressions += [
            f"ARRAY[{items}, NULL]::{name}[]",
            f"ARRAY[ARRAY[{items}], ARRAY[{items}]]::{name}[]",
            f"'{{}}'::{name}[]",
        ]
    expressions += ["'[2:3]={a,b}'::text[]", "'[0:0][5:6]={{1,NULL}}'::int[]"]
    assert _disagreements(connection, expressions) == []


def test_the_built_in_array_types_are_those_of_the_server(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        """
        SELECT oid::int8, typelem::int8, typdelim::text FROM pg_type
        WHERE oid < 10000 AND typlen = -1 AND typsubscript = 'array_subscript_handler'::regproc
          AND typelem NOT IN ('record'::regtype, 0) AND typname NOT LIKE '%vector'
          AND typelem NOT IN (SELECT oid FROM pg_type WHERE typtype = 'c')
        """
    ).fetchall()
    found = {oid: element for oid, element, _ in rows}
    assert found.items() <= ARRAY_ELEMENTS.items()
    assert [oid for oid, _, delimiter in rows if delimiter != form_of_built_in(oid).delimiter] == []


def test_the_catalog_and_python_know_the_same_forms(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "SELECT oid::int8, pgdoc.type_form(oid) FROM pg_type WHERE oid < 10000 AND typtype IN ('b', 'r', 'm')"
    ).fetchall()
    different = [(oid, text) for oid, text in rows if form_of(text) != form_of_built_in(oid)]
    assert different == []
