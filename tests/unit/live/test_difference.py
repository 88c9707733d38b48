"""The difference between two results leads from one to the other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.live.changes import applied
from pgdoc.live.difference import difference
from pgdoc.live.images import RowImage
from pgdoc.live.order import DocumentOrder
from pgdoc.model.documents import Document
from pgdoc.query import parse_sort

ORDER = DocumentOrder(parse_sort("-n"))
RESULTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3))


def made(result: dict[str, int]) -> list[Document[Any]]:
    documents = [Document.from_text(key, f'{{"n": {n}}}', n, None, None) for key, n in result.items()]
    return sorted(documents, key=lambda document: ORDER.place(RowImage(document)))


@given(RESULTS, RESULTS)
def test_the_difference_leads_from_one_result_to_the_other(old: dict[str, int], new: dict[str, int]) -> None:
    before, after = made(old), made(new)
    found = difference(ORDER, before, after)
    result = [*before]
    for change in found:
        if change.old_index is not None:
            assert result[change.old_index].id == change.document.id
        applied(result, change, change.document)
    assert [(each.id, each.version) for each in result] == [(each.id, each.version) for each in after]
    assert len(found) == sum(old.get(key) != new.get(key) for key in old.keys() | new.keys())
