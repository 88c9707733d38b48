"""Rows of a snapshot: many come as a few long values, and each becomes a document on first access."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import pack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import UnreadableDocument
from pgdoc.model.documents import Document, Origin, document_of_image
from pgdoc.model.json_codec import encode
from pgdoc.model.stored_rows import WIDTH, columns_of_stored, rows_by_id
from tests.json_values import documents, ids

if TYPE_CHECKING:
    from pgdoc.model.stored_rows import StoredRow

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
INFINITY = (1 << 63) - 1

times = st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 1))  # noqa: DTZ001 (as hypothesis wants it)
rows = st.tuples(documents, st.integers(1, (1 << 63) - 1), times, times)


def document_of(document_id: str, row: StoredRow) -> Document:
    return document_of_image(document_id, row[WIDTH:] or None, row, Origin("orders", columns_of_stored))


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@given(st.dictionaries(ids, rows, min_size=1, max_size=5))
def test_each_row_becomes_its_document(stored: dict[str, Any]) -> None:
    columns = [pack(">qqq", version, microseconds(one), microseconds(two)) for _, version, one, two in stored.values()]

    found = rows_by_id(
        b"\0".join(document_id.encode() for document_id in stored),
        b"\0".join(encode(data) for data, *_ in stored.values()),
        b"".join(columns),
    )

    assert {document_id: document_of(document_id, row) for document_id, row in found.items()} == {
        document_id: Document(document_id, *row) for document_id, row in stored.items()
    }


def test_no_rows_are_no_documents() -> None:
    assert rows_by_id(None, None, None) == {}


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (pack(">qqq", 1, 0, 0), "data", "can't print"),
        (pack(">qqq", 1, INFINITY, 0) + b"{}", "created_at", "out of Python's range"),
        (pack(">qqq", 1, 0, -INFINITY - 1) + b"{}", "updated_at", "out of Python's range"),
        (pack(">qqq", 1, 0, microseconds(datetime.max.replace(tzinfo=UTC)) + 1) + b"{}", "updated_at", "out of"),
    ],
)
def test_what_can_not_be_read_names_the_document(row: StoredRow, field: str, reason: str) -> None:
    document = document_of("o-1", row)

    assert document.version == 1
    with pytest.raises(UnreadableDocument, match=f"document 'o-1' of collection \"orders\": .*{reason}"):
        getattr(document, field)
