"""A snapshot of a watched table reads rows in the order in which Python compares their keys."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc.model.key_order import KeyOrder
from pgdoc.model.stored_rows import rows_by_key

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMES = ["-infinity", "0044-03-15 10:00:00 BC", "0044-11-15 BC", "0001-01-01", "2020-01-01 10:00:00", "infinity"]
_TIMES += ["2020-01-01 10:00:00.5", "2020-01-01 10:00:00.55", "2020-01-01 10:00:01", "12020-01-01", "9999-12-31"]
_TEXTS = ["", "a", "B", "b", "é", "z", "a b", "a-b", "a,b", "10", "9", "\U0001f600", "\ufffd", '["a"]', "=", "A" * 300]
VALUES: dict[str, list[str]] = {
    "int2": ["-5", "10", "9", "0", "32767", "-32768"],
    "bigint": ["-5", "10", "9", "9223372036854775807", "0"],
    "oid": ["4294967295", "10", "9"],
    "numeric": ["NaN", "Infinity", "-Infinity", "10", "9.5", "9.50001", "-0.001", "1e40"],
    "float8": ["NaN", "Infinity", "-Infinity", "1e300", "1e-300", "-1", "0.1", "10", "9"],
    "date": [
        "-infinity",
        "0044-03-15 BC",
        "0045-03-15 BC",
        "0001-01-01",
        "2020-01-01",
        "2020-01-02",
        "12020-01-01",
        "infinity",
    ],
    "timestamp": _TIMES,
    "timestamptz": _TIMES,
    "uuid": [f"{first}0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" for first in "a9f01"],
    "bytea": ["\\x", "\\x00", "\\x0001", "\\xff", "\\x7f", "\\x80ff"],
    "bool": ["t", "f"],
    "name": ["a", "B", "b", "10", "9"],
    'text COLLATE "C"': _TEXTS,
    'text COLLATE "und-x-icu"': _TEXTS,
    "text": _TEXTS,
    "varchar(400)": _TEXTS,
    "char(3)": ["a", "B", "b ", "é"],
    "time": ["10:00:00", "10:00:00.5", "24:00:00", "09:59:59"],
    "inet": ["10.0.0.1", "9.0.0.1", "10.0.0.0/8", "::1"],
    "interval": ["1 day", "23 hours", "1 month", "-1 day"],
    "public.mood": ["sad", "ok", "happy"],
    "public.amount": ["10", "9", "-1.5"],
    "int4range": ["[1,5)", "[1,10)", "empty", "[10,11)"],
}


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy')")
        connection.execute("CREATE DOMAIN public.amount AS numeric CHECK (VALUE > -100)")
        yield connection


def _read_all(sql: psycopg.Connection[Any], table: str) -> tuple[list[str], KeyOrder]:
    """Read a table in parts of three rows; return the ids in the order of the server, and how Python compares them."""
    found: list[str] = []
    after: list[str] | None = None
    while True:
        query = "SELECT key, orders, ids, rows FROM pgdoc.read_table('public', %s, %s, 3, 1000000)"
        (row,) = sql.execute(query, [table, after]).fetchall()
        key, kinds, ids, rows = row
        order = KeyOrder(kinds)
        part = list(rows_by_key(ids, rows, is_composite=len(key) > 1))
        found += part
        if len(part) < 3:
            return found, order
        after = order.texts(part[-1])


@pytest.mark.parametrize("type_name", VALUES)
def test_rows_come_in_the_order_of_their_keys(dsn: str, sql: psycopg.Connection[Any], type_name: str) -> None:
    sql.execute(f"CREATE TABLE public.keys (k {type_name} PRIMARY KEY)")
    values = VALUES[type_name]
    sql.execute(
        f"INSERT INTO public.keys SELECT v::{type_name.partition(' COLLATE')[0]} FROM unnest(%s::text[]) v", [values]
    )
    with pgdoc.Store(dsn) as store:
        store.add_table("public.keys")
    found, order = _read_all(sql, "keys")
    places = [order.place(each) for each in found]
    assert len(found) == len(values)
    assert all(one < other for one, other in itertools.pairwise(places))


def test_a_composite_key_is_read_in_the_order_of_its_index(dsn: str, sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE public.keys (n int, t text, at timestamptz, PRIMARY KEY (t, at, n))")
    sql.execute(
        "INSERT INTO public.keys SELECT n, t, at::timestamptz FROM generate_series(8, 11) n, "
        "unnest(%s::text[]) t, unnest(%s::text[]) at",
        [["", "a", "B", 'a"', "é"], ["infinity", "2020-01-01", "2020-01-01 10:00:00.5", "0044-03-15 BC"]],
    )
    with pgdoc.Store(dsn) as store:
        store.add_table("public.keys")
    found, order = _read_all(sql, "keys")
    places = [order.place(each) for each in found]
    assert len(found) == 80
    assert all(one < other for one, other in itertools.pairwise(places))


@pytest.mark.parametrize(
    ("columns", "row", "new_key"),
    [
        ("id int PRIMARY KEY, v text NOT NULL", "g, 'v' || g", "id, v"),
        ("id text PRIMARY KEY, v int NOT NULL", "'k' || g, g", "v"),
        ("id int, v text, PRIMARY KEY (id, v)", "g, 'v' || g", "id"),
    ],
)
def test_a_snapshot_does_not_go_on_under_another_key(
    dsn: str, sql: psycopg.Connection[Any], columns: str, row: str, new_key: str
) -> None:
    sql.execute(f"CREATE TABLE public.t ({columns})".encode())
    sql.execute(f"INSERT INTO public.t SELECT {row} FROM generate_series(1, 300) g".encode())
    with pgdoc.Store(dsn) as store:
        store.add_table("public.t")
        with store.watch("public.t", snapshot=True) as stream:
            for _ in range(7):
                stream.next(timeout=30)
            token = stream.resume_token
        sql.execute(f"INSERT INTO public.t SELECT {row} FROM generate_series(301, 302) g".encode())
        sql.execute(f"ALTER TABLE public.t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY ({new_key})".encode())
        with (
            store.watch("public.t", snapshot=True, resume_after=token) as stream,
            pytest.raises(pgdoc.HistoryLost, match="primary key"),
        ):
            list(stream)
        with store.watch("public.t", snapshot=True) as stream:
            assert [stream.next(timeout=30) is not None for _ in range(302)] == [True] * 302
