"""The images of rows that live queries read."""

from __future__ import annotations

from typing import Any

import pytest

from pgdoc.errors import UnreadableDocument
from pgdoc.live.images import RowImage, copy_of
from pgdoc.live.order import DocumentOrder
from pgdoc.model.documents import Document
from pgdoc.query import matcher, parse_filter, parse_sort
from pgdoc.query.filters.projection_parse import parse_fields

TIME = "2026-11-30 10:00:00+00"
DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"


def image(text: str | None, document_id: str = "a", version: int = 1) -> RowImage:
    return RowImage(Document.from_text(document_id, text, version, TIME, TIME))


def match(filter: dict[str, Any]) -> Any:  # noqa: A002
    return matcher(parse_filter(filter))


def test_numbers_are_compared_exactly_and_given_out_as_floats():
    exact = image('{"a": 0.10000000000000000001}')
    assert not exact.passes(match({"a": 0.1}))
    assert copy_of(exact.document).data == {"a": 0.1}


def test_changing_what_was_given_out_changes_no_other_copy():
    shared = image('{"a": [1]}')
    first, second = copy_of(shared.document), copy_of(shared.document)
    first.data["a"].append(2)
    assert (second.data, copy_of(shared.document).data) == ({"a": [1]}, {"a": [1]})


def test_a_projected_copy_has_the_fields_of_the_projection():
    shared = image('{"a": 1, "b": 2}')
    projection = parse_fields("a", lambda: parse_filter({}), None, None)
    assert copy_of(shared.document, projection).data == {"a": 1}
    assert copy_of(shared.document).data == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", [DEEP, None])
def test_a_document_that_can_not_be_read_matches_unless_its_id_decides(text):
    unreadable = image(text)
    assert unreadable.passes(match({"a": 1}))
    assert unreadable.passes(match({"_id": "a"}))
    assert not unreadable.passes(match({"_id": "b"}))
    with pytest.raises(UnreadableDocument):
        _ = unreadable.data


@pytest.mark.parametrize("sort", ["a", "-a", ["-a", "_id"]])
def test_a_document_that_can_not_be_read_sorts_first(sort):
    order = DocumentOrder(parse_sort(sort))
    images = [image("{}", "x"), image('{"a": true}', "y"), image(DEEP, "z")]
    assert min(images, key=order.place).id == "z"


def test_two_images_are_the_same_state_if_the_version_and_the_data_are_equal():
    assert image('{"a": 1, "b": 2}').is_state_of(image('{"b":2,"a":1}'))
    assert not image('{"a": 1}').is_state_of(image('{"a": true}'))
    assert not image('{"a": 1}').is_state_of(image('{"a": 1}', version=2))
    assert image(DEEP).is_state_of(image(DEEP))
    assert not image(DEEP).is_state_of(image(None))
