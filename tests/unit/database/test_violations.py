"""What a document violates, read from the server's report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pgdoc.database.violations import Violation, read_violation

OURS = "orders.mail_1234567890.0123456789"
REST = "pgdoc.unique_rest(id, (x = ANY ('{a,\"b)\"}'::text[])), VARIADIC ARRAY[pgdoc.sort_rest(data -> 'mail'::text)])"


def violation(name: str | None, detail: str | None) -> Violation:
    exc: Any = SimpleNamespace(diag=SimpleNamespace(constraint_name=name, message_detail=detail))
    return read_violation(exc)


def test_an_id_is_read_in_every_language() -> None:
    for detail in ("Key (id)=(o-1) already exists.", "Schlüssel »(id)=(o-1)« existiert bereits."):
        assert violation("orders_pkey", detail).document_id == "o-1"
    assert violation("orders_pkey", "Key (id)=(a)=(b) already exists.").document_id == "a)=(b"


@pytest.mark.parametrize("detail", [None, "", "no brackets", "Key (a", "Key (a'b)=(c)", ")("])
@pytest.mark.parametrize("name", [None, "by_hand", OURS])
def test_an_unknown_report_has_the_index_at_most(name: str | None, detail: str | None) -> None:
    found = violation(name, detail)
    assert (found.document_id, found.paths, found.values) == (None, (), None)
    assert found.index == ("mail_1234567890" if name == OURS else name)


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ("pgdoc.sort_key(data -> 'mail'::text)", "mail"),
        ("sort_key((data -> 'it''s'::text) -> 'b'::text)", "it's.b"),
        (r"pgdoc.sort_key(data -> E'back\\slash'::text)", "back\\slash"),
        (r"""pgdoc.sort_key(pgdoc.value_at(data, E'{a,0,"x, \\"y"}'::text[]))""", 'a.0.x, "y'),
        ("id", "_id"),
    ],
)
def test_paths_are_read_from_the_expressions(column: str, path: str) -> None:
    assert violation(OURS, f"Key ({column}, {REST})=(3x, null) already exists.").paths == (path,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("1", None),
        ("60", False),
        ("61", True),
        ("21", 0),
        ("3", ""),
        ("3a, b)=(c", "a, b)=(c"),
        ("2280000003!", 3),
        ("228000000c1388!", 12.5),
        ("227fff000a!", 0.001),
        ("2080000003~".replace("80000003", "7ffffffc"), -3),
    ],
)
def test_values_are_read_from_the_keys(key: str, value: Any) -> None:
    found = violation(OURS, f"Key (pgdoc.sort_key(data -> 'mail'::text), {REST})=({key}, null) already exists.")
    assert found.values == (value,)


@pytest.mark.parametrize(
    "values",
    ["45x3y00, null", "2284e20001!, null", "3x, rest 0123456789abcdef0123456789abcdef", "3x", "7x, null", "2x, null"],
)
def test_a_value_that_is_not_reported_exactly_is_left_out(values: str) -> None:
    found = violation(OURS, f"Key (pgdoc.sort_key(data -> 'mail'::text), {REST})=({values}) already exists.")
    assert (found.paths, found.values) == (("mail",), None)


@pytest.mark.parametrize(("key", "values"), [("2280000003!", (3,)), ("3ann@example.com", None)])
def test_a_collation_is_no_part_of_a_path_and_a_folded_text_is_no_value(key: str, values: Any) -> None:
    column = "pgdoc.sort_key(pgdoc.collated((data -> 'a'::text) -> 'mail'::text, 'ci'::text))"
    found = violation(OURS, f"Key ({column}, {REST})=({key}, null) already exists.")
    assert (found.paths, found.values) == (("a.mail",), values)
