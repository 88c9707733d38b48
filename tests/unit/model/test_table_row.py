"""The row of a watched table is a document without a version and times."""

from __future__ import annotations

import copy
import pickle

import pytest

from pgdoc.errors import NotACollection
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import decode_decimals
from pgdoc.model.table_row import TableRow


def row(document_id: str = "7", data: str = '{"id": 7, "total": 1.50}') -> TableRow:
    return TableRow.of(document_id, data, "public.orders", None)


@pytest.mark.parametrize("name", ["version", "created_at", "updated_at"])
def test_what_only_documents_of_collections_have_is_missing(name: str) -> None:
    with pytest.raises(NotACollection, match=f'table "public.orders" has no {name}'):
        getattr(row(), name)
    assert not hasattr(row(), name)


def test_a_row_is_a_mapping_of_its_columns() -> None:
    assert isinstance(row(), Document)
    assert (row()["total"], row().get("missing"), "id" in row()) == (1.5, None, True)


def test_rows_are_equal_if_their_ids_and_data_are() -> None:
    assert row() == row(data='{"total": 1.5, "id": 7}')
    assert row() != row("8")
    assert row() != row(data="{}")
    assert row() != "7"
    with pytest.raises(TypeError):
        hash(row())


@pytest.mark.parametrize("is_read", [False, True])
def test_a_row_is_copied_and_pickled(is_read: bool) -> None:
    original = TableRow.of("7", '{"total": 1.50}', "public.orders", decode_decimals)
    if is_read:
        _ = original.data
    for other in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):  # noqa: S301
        assert other == original
        assert repr(other) == repr(original) == "TableRow(id='7')"
        assert str(other.data["total"]) == "1.50"
        with pytest.raises(NotACollection, match=r"public\.orders"):
            _ = other.version


def test_a_deep_copy_shares_no_data() -> None:
    original = row()
    copy.deepcopy(original).data["total"] = 0
    assert original.data["total"] == 1.5
