"""Documents sort the same in Python and in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgdoc.live.images import RowImage
from pgdoc.live.order import DocumentOrder
from pgdoc.live.sort_keys import key_of_value, rest_of_value
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import decode_comparable, encode, encode_value
from pgdoc.query import compile_sort, parse_sort
from tests import json_values

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = "(SELECT * FROM unnest(%s::text[], %s::jsonb[]) AS row(id, data)) AS documents"
TIME = "2026-11-30 10:00:00+00"

laws = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


# Long enough to be cut, and alike where they are cut.
long_texts = st.integers(74, 84).flatmap(
    lambda size: st.sampled_from(["x" * size, "x" * (size - 1) + "\x01", "é" * size])
)
long_numbers = st.integers(64, 90).flatmap(
    lambda size: st.sampled_from([10**size, -(10**size) + 1, 10**size + 5, int("12345678" * (size // 8))])
)
long_fractions = st.decimals(allow_nan=False, allow_infinity=False, places=70) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-1, max_value=1
)
leaves = json_values.scalars | long_texts | long_numbers | long_fractions
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_values.keys, inner, max_size=4)
)


@laws
@given(st.lists(values | json_values.small_json, min_size=1, max_size=20))
@example([10**4299, -(10**4299), 0.0, -0.0, 5e-324, 1.7976931348623157e308])
@example([[[]], [["x" * 100]], {"a\x01": {"b": [1, "\x01\x01"]}}, {}, [], ""])
@example([{str(n): n for n in range(200)}, list(range(200)), [["x"] * 30] * 30])
def test_a_key_in_python_is_that_of_the_catalog(connection: psycopg.Connection, drawn: list[Any]) -> None:
    texts = [encode_value(value, "").decode() for value in drawn]
    query = "SELECT pgdoc.sort_key(value), coalesce(pgdoc.sort_rest(value), '') FROM unnest(%s::jsonb[]) AS each(value)"
    rows = connection.execute(query, [texts]).fetchall()
    read = [decode_comparable(row[0]) for row in connection.execute("SELECT unnest(%s::jsonb[])::text", [texts])]
    assert [(key_of_value(value), rest_of_value(value)) for value in read] == rows


sorts = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["a", "a.b", "a.0", "b", "_id", "a.0.b"])).map(
        lambda key: "-" * key[0] + key[1]
    ),
    max_size=3,
)
data = json_values.documents | st.fixed_dictionaries(
    {}, optional={"a": values | st.fixed_dictionaries({"b": values}), "b": leaves}
)


@laws
@given(
    st.dictionaries(json_values.ids | json_values.texts.filter(bool), data, max_size=12),
    sorts,
    st.sampled_from([None, "ci", "ci_ai"]),
)
def test_documents_sort_in_python_as_in_the_server(
    connection: psycopg.Connection, documents: dict[str, dict[str, Any]], sort: list[str], collation: str | None
) -> None:
    keys = parse_sort(sort or ["_id"], collation)
    rows = [list(documents), [encode(each).decode() for each in documents.values()]]
    query = f"SELECT id, data::text FROM {DOCUMENTS} ORDER BY {compile_sort(keys).text}"
    found = connection.execute(query, rows).fetchall()
    order = DocumentOrder(parse_sort(sort, collation))
    images = [RowImage(Document.from_text(key, text, 1, TIME, TIME)) for key, text in sorted(found)]
    assert [each.id for each in sorted(images, key=order.place)] == [row[0] for row in found]
