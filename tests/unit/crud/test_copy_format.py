from __future__ import annotations

import json
from struct import unpack_from
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.crud.copy_format import HEADER, TRAILER, CopyRows
from pgdoc.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50)
DATA = st.dictionaries(st.sampled_from(["a", "b.c", "☃", "\t"]), st.integers() | st.text("\t\n\\ü", max_size=9))


def read(stream: bytes) -> Iterator[tuple[str, Any]]:
    """Read binary COPY as PostgreSQL's documentation describes it."""
    assert stream.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    at = 19
    while (fields := unpack_from(">h", stream, at)[0]) != -1:
        assert fields == 2
        (length,) = unpack_from(">i", stream, at + 2)
        key = stream[at + 6 : at + 6 + length].decode()
        at += 6 + length
        length, version = unpack_from(">ib", stream, at)
        assert version == 1
        yield key, json.loads(stream[at + 5 : at + 4 + length])
        at += 4 + length
    assert at + 2 == len(stream)


@given(st.lists(st.tuples(IDS, DATA)))
def test_what_is_written_is_read(pairs: list[tuple[str, dict[str, Any]]]) -> None:
    rows = CopyRows(pairs)
    assert list(read(HEADER + b"".join(rows) + TRAILER)) == pairs
    assert rows.count == len(pairs)


def test_blocks_are_bounded_and_pairs_are_read_as_they_are_asked_for() -> None:
    taken: list[int] = []

    def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
        for number in range(10_000):
            taken.append(number)
            yield str(number), {"text": "x" * 1000}

    told: list[int] = []
    blocks = iter(CopyRows(pairs(), told.append))
    assert len(next(blocks)) < 300_000
    assert len(taken) < 300
    assert told == []
    rest = list(blocks)
    assert max(map(len, rest)) < 300_000
    assert told[-1] == len(taken) == 10_000


def test_the_document_at_fault_is_named() -> None:
    with pytest.raises(InvalidDocument, match=r"document 'o-2'.*a\.b") as raised:
        list(CopyRows([("o-1", {}), ("o-2", {"a": {"b": object()}})]))
    assert raised.value.path == "a.b"


def test_an_id_at_fault_is_named() -> None:
    with pytest.raises(InvalidDocument) as raised:
        list(CopyRows([("", {})]))
    assert raised.value.path == "_id"
