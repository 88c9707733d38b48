"""The server prints the rows of a snapshot as readers of the WAL make them: see `row_source` of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc.decoding.row_json import form_of, json_of_value
from pgdoc.model.documents import data_text
from pgdoc.model.table_row import TableRow
from tests.column_values import SETTINGS, VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES = """
CREATE TYPE public.mood AS ENUM ('sad', 'o, "k');
CREATE DOMAIN public.amount AS numeric;
CREATE DOMAIN public.flag AS bool;
CREATE DOMAIN public.payload AS json;
CREATE DOMAIN public.moment AS timestamptz;
CREATE DOMAIN public.numbers AS int[];
CREATE TYPE public.pair AS (a int, b int);
CREATE TYPE public.span AS RANGE (subtype = numeric);
"""
_OF_USERS = {
    "public.mood": ["'o, \"k'"],
    "public.amount": ["1.50", "'NaN'"],
    "public.flag": ["true"],
    "public.payload": ["'{\"a\":  1}'"],
    "public.moment": ["'2026-11-29 12:00'", "'infinity'"],
    "public.numbers": ["'{1,NULL}'", "'[0:1]={2,3}'"],
    "public.pair": ["'(1,2)'", "'(,)'"],
    "public.span": ["'[1,2.5)'"],
}
_ONLY_AS_TEXTS = {
    "public.mood[]": ["'{sad,NULL}'"],
    "public.amount[]": ["'{1.50,NaN}'"],
    "public.pair[]": ["'{\"(1,2)\"}'"],
}


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_TYPES)
        for setting in SETTINGS:
            connection.execute(setting.encode())
        yield connection


def _columns(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Return the types and values of many columns, an array among them for each type of PostgreSQL's own."""
    values: dict[str, Any] = {**VALUES, **_OF_USERS}
    try:
        connection.execute("SELECT CAST('<a/>' AS xml)")
    except psycopg.errors.FeatureNotSupported:
        del values["xml"]
    arrays = {
        f"{name}[]": [f"ARRAY[{', '.join(each)}, NULL]::{name}[]"] for name, each in VALUES.items() if name in values
    }
    return [(name, value) for name, each in {**values, **arrays}.items() for value in each]


def _make(connection: psycopg.Connection[Any], columns: list[tuple[str, str]], document: str | None) -> None:
    """Create a table of these columns, with a row that has the values, and one without."""
    names = [f'c"{number}\\é' for number in range(len(columns))]
    defined = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, (kind, _) in zip(names, columns, strict=True)
    ]
    values = [sql.SQL("CAST({} AS {})").format(sql.SQL(value), sql.SQL(kind)) for kind, value in columns]
    last = "" if document is None else ", doc jsonb"
    connection.execute(
        sql.SQL("CREATE TABLE public.wide (id int PRIMARY KEY, {}{})").format(
            sql.SQL(", ").join(defined), sql.SQL(last)
        )
    )
    connection.execute(
        sql.SQL("INSERT INTO public.wide VALUES (1, {}{})").format(
            sql.SQL(", ").join(values), sql.SQL("" if document is None else f", {document}")
        )
    )
    connection.execute("INSERT INTO public.wide VALUES (2)")


def _expected(connection: psycopg.Connection[Any], number: int) -> dict[str, str]:
    """Return the JSON of each column of a row, made from its text."""
    columns = connection.execute(
        "SELECT attname, pgdoc.type_form(atttypid) FROM pg_attribute "
        "WHERE attrelid = 'public.wide'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    found = {}
    for name, form in columns:
        query = sql.SQL(
            "SELECT CASE WHEN num_nulls({0}) = 0 THEN format('%s', {0}) END FROM public.wide WHERE id = {1}"
        )
        ((text,),) = connection.execute(query.format(sql.Identifier(name), number)).fetchall()
        found[name] = json_of_value(text, form_of(form))
    return found


def _object(fields: dict[str, str]) -> str:
    return "{" + ",".join(f"{json_of_value(name, form_of('text'))}:{value}" for name, value in fields.items()) + "}"


def _source(connection: psycopg.Connection[Any]) -> str:
    ((text,),) = connection.execute("SELECT pgdoc.row_source('public.wide', NULL)").fetchall()
    return str(text)


def _read(dsn: str, document: str | None) -> list[TableRow]:
    with pgdoc.Store(dsn) as store:
        store.add_table("public.wide", document=document)
        with store.watch("public.wide", snapshot=True) as stream:
            rows = [
                event.full_document for event in (stream.next(timeout=30), stream.next(timeout=30)) if event is not None
            ]
    assert all(isinstance(row, TableRow) for row in rows)
    return rows  # type: ignore[return-value]


def _text(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def test_the_server_prints_every_type_as_the_mapping_writes_it(dsn: str, connection: psycopg.Connection[Any]) -> None:
    _make(connection, _columns(connection), None)
    assert _source(connection).startswith("concat(concat(")
    for number, row in enumerate(_read(dsn, None), 1):
        assert _text(data_text(row)) == _object(_expected(connection, number))


def test_a_document_and_the_other_columns_are_printed_apart(dsn: str, connection: psycopg.Connection[Any]) -> None:
    document = """'{"a": "\\u0001 é", "b": [1.10, null]}'"""
    _make(connection, [("text", "E'\\x01'"), ("numeric", "'NaN'"), ("json", "'[1,\n2]'")], document)
    for number, row in enumerate(_read(dsn, "doc"), 1):
        fields = _expected(connection, number)
        assert _text(data_text(row)) == fields.pop("doc")
        assert _text(row.columns_text) == _object(fields)


@pytest.mark.parametrize("name", _ONLY_AS_TEXTS)
def test_arrays_of_other_types_are_sent_as_texts(dsn: str, connection: psycopg.Connection[Any], name: str) -> None:
    _make(connection, [("text", "'a'"), *[(name, value) for value in _ONLY_AS_TEXTS[name]]], None)
    is_array = not _source(connection).startswith("concat(")
    assert is_array == (name != "public.pair[]")  # its structure is not in the stream: it is a text
    for number, row in enumerate(_read(dsn, None), 1):
        assert _text(data_text(row)) == _object(_expected(connection, number))
