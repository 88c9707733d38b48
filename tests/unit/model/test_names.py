from __future__ import annotations

from typing import Any

import pytest

from pgdoc.errors import InvalidName
from pgdoc.model.names import check_name, quoted


@pytest.mark.parametrize("name", ["a", "_", "orders-2026", "Größe", "x" * 63, "é" * 31])
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name, "collection") == name


@pytest.mark.parametrize(
    "name", ["", "2a", "-", "a b", "a.b", 'a"', "a%s", "a\n", "a\0", "x" * 64, "é" * 32, None, 5, b"a"]
)
def test_an_invalid_name_is_refused_with_its_kind(name: Any) -> None:
    with pytest.raises(InvalidName, match="schema"):
        check_name(name, "schema")


def test_a_table_is_quoted() -> None:
    assert quoted("Docs", "select") == '"Docs"."select"'
