"""Names of watched tables, and of their documents' columns."""

from __future__ import annotations

from typing import Any

import pytest

from pgdoc.errors import InvalidInput, InvalidName
from pgdoc.model.table_names import check_document_column, check_table, is_table_name, table_address


@pytest.mark.parametrize("name", ["public.orders", "My schema.Order lines", "a.b.c", 's."t"', "s." + "x" * 63, "ä.ö"])
def test_a_name_has_a_schema_and_any_characters(name: str) -> None:
    assert check_table(name) == name
    assert ".".join(table_address(name)) == name
    assert "." not in table_address(name)[0]
    assert is_table_name(name)


@pytest.mark.parametrize(
    "name",
    ["orders", "", ".", ".orders", "public.", None, 7, b"a.b", "s." + "x" * 64, "s." + "ö" * 32, "s.\0", "s.\ud800"],
)
def test_any_other_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName, match="is not the name of a table"):
        check_table(name)


@pytest.mark.parametrize("name", ["payload", "Order lines", "a.b", "x" * 63])
def test_a_column_of_documents_has_any_name(name: str) -> None:
    assert check_document_column(name) == name
    assert check_document_column(None) is None


@pytest.mark.parametrize("name", ["", 7, b"payload", ["payload"], "x" * 64, "\0", "\ud800"])
def test_a_document_that_names_no_column_is_refused(name: Any) -> None:
    with pytest.raises(InvalidInput, match="document must be the name of a column"):
        check_document_column(name)
