"""What a mirror shows, against a model that holds all documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.live.images import RowImage
from pgdoc.live.mirrored import Mirrored
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import decode, encode
from pgdoc.model.typed.reader import reader_of
from pgdoc.query import parse_filter

EVENT: Any = object()
TIME = "2026-11-30 10:00:00+00"
names = st.sampled_from(["load", "commit", "commit", "truncate", *"abcd" * 3])
steps = st.lists(st.tuples(names, st.sampled_from([None, 0, 1, 2])), min_size=5, max_size=40)


def image(document_id: str, value: int) -> RowImage:
    return RowImage(Document.from_text(document_id, encode({"n": value}), 1, TIME, TIME))


@given(steps)
def test_a_mirror_shows_what_matched_at_the_last_commit(drawn: list[tuple[str, int | None]]) -> None:
    mirrored, collection = Mirrored(parse_filter({"n": {"$gt": 0}})), dict[str, int]()
    shown: dict[str, int] = {}
    assert mirrored.needs_read
    mirrored.load({}, is_all=True)
    for name, value in drawn:
        before = collection.get(name)
        if name == "load":
            mirrored.load(mirrored.prepared(image(*each) for each in collection.items()), is_all=True)
        elif name == "commit":
            assert mirrored.commit() == []
            shown = {key: each for key, each in collection.items() if each > 0}
        elif name == "truncate":
            collection.clear()
            mirrored.clear(EVENT)
        else:
            collection = {key: each for key, each in (collection | {name: value}).items() if each is not None}
            old, new = (None if each is None else image(name, each) for each in (before, value))
            mirrored.apply(old, new, EVENT)
        assert {key: each["n"] for key, each in mirrored.shown.items()} == shown


@dataclass
class Counted:
    """A model."""

    n: int


def test_the_documents_of_a_mirror_are_its_own_and_read_as_its_model():
    shared = image("a", 1)
    plain, typed = Mirrored(parse_filter({})), Mirrored(parse_filter({}), reader_of(Counted, decode))
    for mirrored in (plain, typed):
        mirrored.load(mirrored.prepared([shared]), is_all=True)
        mirrored.commit()
    assert (plain.shown["a"].data, typed.shown["a"].data) == ({"n": 1}, Counted(1))
    assert plain.shown["a"] is not shared.document
