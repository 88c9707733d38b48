"""JSON text as data: stored as it is, or refused as the decoded value would be."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc import RawJson
from pgdoc.errors import InvalidDocument
from pgdoc.model.json_codec import decode, encode, encode_value
from tests.json_values import documents

DEEPEST = "[" * 252 + "]" * 252


def exact(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


@given(documents)
def test_the_text_of_a_document_is_stored_as_it_is(data: Any) -> None:
    text = encode(data)

    assert encode(RawJson(text)) == text
    assert encode(RawJson(text.decode())) == text


@given(documents, st.booleans())
def test_a_text_inside_a_document_has_the_same_value(data: Any, has_encoder: bool) -> None:
    text = encode({"of": [RawJson(encode(data)), 1]}, (lambda value: value) if has_encoder else None)

    assert exact(text) == exact(encode({"of": [data, 1]}))


@pytest.mark.parametrize("number", ["1.10", "1e23", "0.1000000000000000055511151231257827", "1" * 400, "1e-400"])
def test_a_number_keeps_its_value(number: str) -> None:
    text = f'{{"n": {number}}}'

    assert Decimal(exact(encode(RawJson(text)))["n"]) == Decimal(number)
    assert Decimal(exact(encode({"of": RawJson(text)}))["of"]["n"]) == Decimal(number)


def test_a_text_may_be_nested_as_deep_as_a_document() -> None:
    assert decode(encode(RawJson(f'{{"a": {DEEPEST}}}'))) == {"a": orjson.loads(DEEPEST)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "can't be converted"),
        (b"{", "can't be converted"),
        ('{"a": 1} 2', "can't be converted"),
        (b'{"a": "\xff"}', "can't be converted"),
        ('{"a": "\ud800"}', "can't be converted"),
        (None, "can't be converted"),
        (10**12, "can't be converted"),
        ([123, 125], "can't be converted"),
        ('{"a": NaN}', "JSON can't represent nan"),
        ('{"a": -Infinity}', "JSON can't represent -inf"),
        ('{"a": "\\u0000"}', "NUL"),
        ('{"\\u0000": 1}', "NUL"),
        ('{"a": "\\ud800"}', "surrogate"),
        (f'{{"a": [[{DEEPEST}]]}}', "deeper than 254 levels"),
        ("[" * 100_000, "can't be converted"),
        (f'{{"a": {"9" * 4301}}}', "4,?300"),
        ('{"a": 1e4300}', "4,300 digits"),
        ("[]", "which is not an object"),
        ("null", "which is not an object"),
        ('{"_id": 1}', "_id"),
        ('{"\\u005fid": 1}', "_id"),
    ],
)
def test_a_text_that_no_document_can_have_is_refused(text: Any, reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        encode(RawJson(text))


@pytest.mark.parametrize("around", [1, 2, 100, 252])
def test_a_text_inside_a_document_counts_its_depth(around: int) -> None:
    """Else a document could be stored that no later call can write again."""
    inner = 254 - around
    for inside, is_refused in ((inner, False), (inner + 1, True)):
        value: Any = RawJson("[" * inside + "]" * inside)
        for _ in range(around - 1):
            value = [value]
        if is_refused:
            with pytest.raises(InvalidDocument, match="deeper than 254 levels"):
                encode({"a": value})
        else:
            assert encode(decode(encode({"a": value})))


def test_a_buffer_is_a_text_too() -> None:
    for text in (bytearray(b"{}"), memoryview(b"{}")):
        assert encode(RawJson(text)) == b"{}"  # type: ignore[arg-type]


def test_the_error_has_the_path_of_the_text() -> None:
    with pytest.raises(InvalidDocument) as caught:
        encode({"of": [RawJson("{")]})

    assert caught.value.path == "of.0"


def test_a_text_inside_may_be_any_value() -> None:
    assert encode_value([RawJson("null"), RawJson(b' {"_id": 1} ')], "") == b'[null, {"_id": 1} ]'
