"""The mapping of a table's values agrees with PostgreSQL's `to_json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc.decoding.row_json import ARRAY_ELEMENTS, form_of, form_of_built_in, json_of_value

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS = (
    "SET DateStyle = ISO",
    "SET IntervalStyle = iso_8601",
    "SET TimeZone = UTC",
    "SET bytea_output = hex",
    "SET extra_float_digits = 1",
    "SET search_path = pg_catalog",
    "SET quote_all_identifiers = off",
    "SET lc_monetary = 'C'",
)

_ODD_TEXTS = (
    "''",
    "'a b'",
    "'NULL'",
    "'null'",
    """'"quoted" \\back / {brace}, ; [1:2]={3}'""",
    "E'line\\nfeed\\ttab\\x01\\x1f\\x7f'",
    "'é € 𝄞'",
)
_VALUES: dict[str, tuple[str, ...]] = {
    "bool": ("true", "false"),
    "bytea": ("'\\xdead'", "''"),
    '"char"': ("'a'", "''", "'\"'"),
    "name": _ODD_TEXTS[1:],
    "text": _ODD_TEXTS,
    "varchar(50)": _ODD_TEXTS,
    "char(12)": ("'ab'", "''"),
    "int2": ("-32768", "0"),
    "int4": ("-2147483648", "7"),
    "int8": ("9223372036854775807", "-1"),
    "oid": ("26", "4294967295"),
    "float4": ("'-0'", "1e38", "'NaN'", "'-Infinity'", "0.1"),
    "float8": ("'-0'", "1e-320", "1e300", "'NaN'", "'Infinity'", "0.1", "123456789012345680000"),
    "numeric": ("1500.50", "1e131071", "'NaN'", "'Infinity'", "'-Infinity'", "0.000", "-12"),
    "numeric(6,2)": ("1.5", "-0.01"),
    "money": ("1234.5", "-3"),
    "date": ("'2026-11-29'", "'0044-03-15 BC'", "'infinity'", "'20000-01-01'"),
    "time": ("'12:00'", "'24:00'"),
    "timetz": ("'12:00:00.5+01'", "'00:00-12:30'"),
    "timestamp": ("'2026-11-29 07:08:51.8'", "'0044-03-15 12:00 BC'", "'-infinity'", "'20000-01-01'"),
    "timestamptz": ("'2026-11-29 07:08:51.817473+05'", "'0044-03-15 12:00 BC'", "'infinity'", "'20000-01-01'"),
    "interval": ("'1 year 2 days 3.5 seconds'", "'-1 day'"),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",),
    "json": ("""'{"a":  1, "a": [1.10, "x"]}'""", "'null'", "'\"\\u0000\"'", "'[1,\n2]'"),
    "jsonb": ("""'{"a": 1.10, "b": "\\"{},;"}'""", "'null'", "'1e3'"),
    "jsonpath": ("'$.a[*] ? (@ > 1)'",),
    "xml": ("'<a b=\"c\">d</a>'",),
    "inet": ("'10.0.0.1'", "'10.0.0.0/8'", "'::1'"),
    "cidr": ("'10.0.0.0/8'",),
    "macaddr": ("'08:00:2b:01:02:03'",),
    "macaddr8": ("'08:00:2b:01:02:03:04:05'",),
    "bit(3)": ("'101'",),
    "varbit": ("'10'", "''"),
    "point": ("'(1,2)'",),
    "line": ("'{1,2,3}'",),
    "lseg": ("'[(1,2),(3,4)]'",),
    "box": ("'(3,4),(1,2)'",),
    "path": ("'((1,2),(3,4))'",),
    "polygon": ("'((1,2),(3,4))'",),
    "circle": ("'<(1,2),3>'",),
    "int4range": ("'[1,5)'", "'empty'"),
    "numrange": ("'(1.5,]'",),
    "tsrange": ("'[2026-01-01,2026-02-01 10:00)'",),
    "tstzrange": ("'[2026-01-01,)'",),
    "daterange": ("'[2026-01-01,2026-02-01)'",),
    "int4multirange": ("'{[1,3),[5,9)}'",),
    "tsvector": ("'fat:1A cat:2'", "'''a b'' ''c''''d'''"),
    "tsquery": ("'fat & !cat'",),
    "pg_lsn": ("'16/B374D848'",),
    "regclass": ("'pg_class'", "'information_schema.tables'"),
    "regtype": ("'timestamp with time zone'",),
    "regproc": ("'now'",),
    "tid": ("'(1,2)'",),
    "xid": ("'7'",),
    "xid8": ("'7'",),
    "txid_snapshot": ("'10:20:10,14'",),
    "int2vector": ("'1 2'",),
    "oidvector": ("'1 2'",),
}


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for setting in _SETTINGS:
            connection.execute(setting.encode())
        yield connection


def _values(connection: psycopg.Connection) -> list[tuple[str, tuple[str, ...]]]:
    """Return the values that the server knows: it may be built without libxml."""
    try:
        connection.execute("SELECT CAST('<a/>' AS xml)")
    except psycopg.errors.FeatureNotSupported:
        return [item for item in _VALUES.items() if item[0] != "xml"]
    return list(_VALUES.items())


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
