from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
import time
import uuid
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import InvalidDocument, UnreadableDocument
from pgdoc.model.documents import Document
from pgdoc.model.ids import check_id, new_id
from pgdoc.model.json_codec import (
    MAX_DEPTH,
    MAX_DIGITS,
    decode,
    decode_short,
    encode,
    encode_value,
    may_have_long_numbers,
)
from tests import json_values

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LARGEST = 10**MAX_DIGITS - 1


class Status(StrEnum):
    NEW = "new"


def nested(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return data


@given(json_values.any_documents)
def test_data_decodes_to_an_equal_value(data: dict[str, Any]) -> None:
    assert decode(encode(data)) == data


def as_printed(*documents: dict[str, Any]) -> list[bytes]:
    """Return the texts of documents as PostgreSQL prints them."""
    return [json.dumps(data, ensure_ascii=False).encode() for data in documents]


@given(st.lists(json_values.any_documents, max_size=4))
def test_texts_without_long_numbers_need_no_search_of_their_own(documents: list[dict[str, Any]]) -> None:
    texts = as_printed(*documents)

    if not may_have_long_numbers(b"\0".join(texts)):
        assert [decode_short(text) for text in texts] == [decode(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        str(2**64),
        str(-(2**63) - 1),
        f"-{10**30}",
        f"[{2**64}]",
        f"[1, {2**64}]",
        f'{{"a": [{{"b": {2**64}}}]}}',
        f"0.{'0' * 400}1",
        f"-0.{'0' * 400}1",
        f"{10**400}.5",
    ],
)
def test_a_long_number_is_found_among_many_texts(text: str) -> None:
    texts = as_printed(*[{"n": n, "digest": str(10**30 + n), "small": [-n], "large": 2**63 - 1} for n in range(50)])

    assert not may_have_long_numbers(b"\0".join(texts))
    assert may_have_long_numbers(b"\0".join([*texts, b'{"n": %b}' % text.encode(), *texts]))


@given(json_values.floats)
def test_the_text_of_a_float_is_its_exact_value_for_postgresql(value: float) -> None:
    """PostgreSQL stores the decimal digits. Those of `1e23` are another number than the float."""
    written = Decimal(encode_value(value, "").decode())
    assert float(written) == value
    assert abs(value) < 1e16 or written == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e15, "1000000000000000.0"),
        (1e16, "10000000000000000.0"),
        (1e23, "99999999999999991611392.0"),
        (2.0**63, "9223372036854775808.0"),
        ([{"a": -1e23}], '[{"a":-99999999999999991611392.0}]'),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        pytest.param(LARGEST, str(LARGEST), id="longest integer"),
        ((1, (2,)), "[1,[2]]"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-401"), "0." + "0" * 400 + "1"),
        ("\\u0000", r'"\\u0000"'),
        (Status.NEW, '"new"'),
        ({Status.NEW: (True, None)}, '{"new":[true,null]}'),
        (MappingProxyType({"a": OrderedDict(b=1)}), '{"a":{"b":1}}'),
        ({"hash": "0e05", "plus": "1e+5,"}, '{"hash":"0e05","plus":"1e+5,"}'),
    ],
)
def test_values_are_encoded_exactly(value: Any, text: str) -> None:
    assert encode_value(value, "").decode() == text


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), ""),
        (float("inf"), ""),
        (Decimal("NaN"), ""),
        (Decimal("1E+4300"), ""),
        (Decimal("1E-16384"), ""),
        pytest.param(LARGEST + 1, "", id="long integer"),
        ("\0", ""),
        ("\ud800", ""),
        (b"bytes", ""),
        (NOON.replace(tzinfo=None), ""),
        ({1}, ""),
        (object(), ""),
        (Document, ""),
        (orjson.Fragment(b"1"), ""),
        ({1: "one"}, ""),
        ({"a\0": 1}, ".a\0"),
        ({"b": [0, {"c": float("nan")}]}, ".b.1.c"),
    ],
)
def test_a_value_that_can_not_be_stored_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        encode({"a": [value]})
    assert caught.value.path == f"a.0{path}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "JSON can't represent nan: use None, or text"),
        (Decimal("NaN"), "JSON can't represent Decimal('NaN'): use None, or text"),
        ({1}, "{1} has type set, which JSON can't represent: convert it, for example to "),
    ],
)
def test_the_error_of_a_value_that_json_lacks_says_what_to_use(value: Any, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        encode({"a": value})
    assert str(caught.value).startswith(f"at 'a': {message}")


def test_the_depth_of_a_document_has_a_limit() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(InvalidDocument, match="nested deeper than 254 levels"):
        encode(nested(MAX_DEPTH + 1))
    with pytest.raises(InvalidDocument, match="nested deeper than 254 levels"):
        encode({"big": LARGEST, **nested(MAX_DEPTH + 1)})


def test_data_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = [loop]
    with pytest.raises(InvalidDocument, match="contains itself") as caught:
        encode(loop)
    assert str(caught.value.path).startswith("loop.0.loop.0.")


@pytest.mark.parametrize("data", [[], "text", None, 1])
def test_data_must_be_an_object(data: Any) -> None:
    with pytest.raises(InvalidDocument, match="use a dict"):
        encode(data)


def test_a_top_level_id_is_refused_and_a_deeper_one_is_not() -> None:
    with pytest.raises(InvalidDocument) as caught:
        encode({"_id": 1})
    assert caught.value.path == "_id"
    assert encode({"a": {"_id": 1}}) == b'{"a":{"_id":1}}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        ("0.30000000000000000000001", 0.3),
        ("1" + "0" * 400 + ".5", Decimal("1" + "0" * 400 + ".5")),
        ("0." + "0" * 400 + "1", Decimal("1E-401")),
        ("0." + "0" * 400, 0.0),
        ('"99999999999999999999"', "9" * 20),
    ],
)
def test_numbers_decode_to_the_nearest_python_value(text: str, value: Any) -> None:
    for given_text in (text, text.encode()):
        found = decode(given_text)
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["1" * (MAX_DIGITS + 1), "[" * 5000 + "]" * 5000, "{"], ids=["digits", "depth", "syntax"]
)
def test_text_that_python_can_not_hold_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableDocument):
        decode(text)


@pytest.mark.parametrize("document_id", ["o-1", "é" * 512, "x" * 1024, Status.NEW])
def test_a_valid_id_is_returned(document_id: str) -> None:
    found = check_id(document_id)
    assert found == document_id
    assert type(found) is str


@pytest.mark.parametrize("document_id", ["", "\0", "a\0b", "é" * 513, "x" * 1025, "\ud800", 5, None, b"o-1"])
def test_an_invalid_id_is_refused(document_id: Any) -> None:
    with pytest.raises(InvalidDocument) as caught:
        check_id(document_id)
    assert caught.value.path == "_id"


def test_new_ids_are_uuid7_and_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in made} == {(7, uuid.RFC_4122)}
    assert str(uuid.UUID(made[0])) == made[0]


def test_new_ids_sort_while_the_clock_stands_and_when_it_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    made = [first, *(new_id() for _ in range(100))]
    assert made == sorted(set(made))


def test_new_ids_differ_between_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [one for part in pool.map(lambda _: [new_id() for _ in range(2000)], range(4)) for one in part]
    assert len(set(made)) == len(made)


FORKED = """
import os
from pgdoc import new_id
new_id()
child = os.fork()
if child:
    os.waitpid(child, 0)  # else their lines can mix
print(new_id()[19:], flush=True)
"""


def test_new_ids_differ_between_a_process_and_its_child() -> None:
    """Their random parts do: the times would differ in any case."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    ours, theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert ours != theirs


def lazy() -> Document:
    return Document.from_text("o-1", b'{"total": 5}', 2, "2026-11-23 12:00:00+00", "2026-11-23 14:00:00.5+02")


def eager() -> Document:
    return Document("o-1", {"total": 5}, 2, NOON, NOON.replace(microsecond=500_000))


def test_a_document_from_text_equals_one_from_values() -> None:
    assert lazy() == eager()
    assert repr(lazy()) == repr(eager())
    assert dataclasses.asdict(lazy()) == dataclasses.asdict(eager())
    assert lazy()["total"] == 5
    assert lazy().updated_at.tzinfo is UTC
    assert lazy() != dataclasses.replace(lazy(), version=3)


def test_the_repr_of_an_unreadable_document_does_not_raise() -> None:
    document = Document.from_text("o-1", None, 2, "infinity", "2026-11-23 14:00:00.5+02")
    assert repr(document).startswith(
        "Document(id='o-1', data=<unreadable>, version=2, created_at=<unreadable>, updated_at=datetime.datetime("
    )


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301
def test_a_document_from_text_can_be_copied_before_and_after_it_is_decoded(duplicate: Any) -> None:
    document = lazy()
    assert duplicate(document) == eager()
    assert document.data == {"total": 5}
    assert duplicate(document) == eager()


def test_data_is_decoded_once() -> None:
    document = lazy()
    document.data["total"] = 6
    assert document["total"] == 6


def test_a_document_is_frozen_and_has_no_other_attributes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        lazy().version = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="'total'"):
        lazy().total  # type: ignore[attr-defined]  # noqa: B018


def test_unreadable_data_raises_on_each_access_and_not_before() -> None:
    document = Document.from_text("o-1", "1" * 5000, 1, "infinity", NOON)
    assert document.version == 1
    for _ in range(2):
        with pytest.raises(UnreadableDocument, match="document 'o-1'"):
            document.data  # noqa: B018
    with pytest.raises(UnreadableDocument, match="infinity"):
        document.created_at  # noqa: B018


def test_a_document_answers_for_the_fields_of_its_data() -> None:
    document: Any = Document.from_text("o-1", '{"total": null}', 1, None, None)
    assert "total" in document
    assert "id" not in document
    assert (document.get("total", 5), document.get("id"), document.get("id", 5)) == (None, None, 5)
    with pytest.raises(TypeError, match="not iterable"):
        dict(document)
