"""The window of a live query, against a model that sorts and cuts all documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pgdoc.live.changes import LiveChange, applied
from pgdoc.live.images import RowImage
from pgdoc.live.order import DocumentOrder
from pgdoc.live.window import LiveWindow
from pgdoc.model.documents import Document
from pgdoc.model.json_codec import encode
from pgdoc.query import matches, parse_filter, parse_sort

FILTER = {"a": {"$gte": 2}}
NODE = parse_filter(FILTER)
TIME = "2026-11-30 10:00:00+00"


def image(document_id: str, data: dict[str, Any], version: int = 1) -> RowImage:
    return RowImage(Document.from_text(document_id, encode(data), version, TIME, TIME))


@dataclass
class Model:
    """A collection, and the window that follows it."""

    sort: str | None
    limit: int | None
    spare: int
    collection: dict[str, RowImage] = field(default_factory=dict)
    version: int = 0

    def __post_init__(self) -> None:
        sort = parse_sort(self.sort)
        self.order = DocumentOrder(sort)
        self.window = LiveWindow(NODE, sort, self.limit, spare=self.spare)
        self.followed: list[tuple[str, int]] = []
        self.truncations: list[object] = []
        self.events: dict[str, Any] = {}  # since the last commit, the last one of each that is shown or matches
        self.is_read = False
        self.read()
        self.commit()

    @property
    def matching(self) -> list[RowImage]:
        found = [each for each in self.collection.values() if matches(NODE, each.id, each.data)]
        return sorted(found, key=self.order.place)

    @property
    def expected(self) -> list[tuple[str, int]]:
        return [(each.id, each.document.version) for each in self.matching[: self.limit]]

    def write(self, document_id: str, value: int | None) -> None:
        before, event = self.collection.pop(document_id, None), object()
        is_shown = document_id in dict(self.followed) and (before is not None or value is not None)
        if is_shown or (value or 0) >= 2 or (before is not None and before.data["a"] >= 2):
            self.events[document_id] = event
        after = None
        if value is not None:
            self.version += 1
            after = self.collection[document_id] = image(document_id, {"a": value}, self.version)
        self.window.apply(before, after, event)  # type: ignore[arg-type]

    def truncate(self) -> None:
        self.truncations.append(event := object())
        self.events.update((each.id, event) for each in self.matching)
        self.collection.clear()
        self.window.clear(event)  # type: ignore[arg-type]

    def read(self) -> None:
        found, most = self.matching, self.window.read_limit
        self.window.load(self.window.prepared(found[:most]), is_all=most is None or len(found) <= most)
        self.is_read = True

    def commit(self) -> list[LiveChange]:
        if self.window.needs_read:
            assert self.limit is not None
            assert len(self.window._places) < self.limit
            assert self.window._boundary is not None, "it knows all documents"
            assert self.window.commit() == []
            self.read()
        assert not self.window.needs_read
        changes = self.window.commit()
        for change in changes:
            document = change.document
            if change.old_index is not None:
                assert self.followed[change.old_index][0] == document.id
            applied(self.followed, change, (document.id, document.version))
            assert self.limit is None or len(self.followed) <= self.limit
            last = self.events.get(document.id)
            # Of a document beyond the boundary, the window can't tell whether there is one to truncate.
            is_either = last in self.truncations and change.event is not None
            assert self.is_read or change.event is last or is_either
        assert self.followed == self.expected
        assert [(each.id, each.version) for each in self.window.documents] == self.expected
        assert len({change.document.id for change in changes}) == len(changes)
        assert self.window.commit() == []
        self.events, self.is_read = {}, False
        return changes


ids = st.sampled_from("abcdefgh")
writes = st.tuples(st.just("write"), ids, st.sampled_from([None, 1, 2, 3, 4, 5]))
others = st.sampled_from([("commit",), ("commit",), ("commit",), ("read",), ("truncate",)])
operations = st.one_of(writes, writes, writes, others)


@settings(max_examples=300)
@given(
    st.sampled_from([None, "a", "-a", "-_id"]),
    st.none() | st.integers(0, 4),
    st.integers(0, 2),
    st.lists(operations, min_size=12, max_size=60),
)
def test_after_each_commit_the_window_shows_what_a_sort_of_all_documents_shows(
    sort: str | None, limit: int | None, spare: int, steps: list[tuple[Any, ...]]
) -> None:
    model = Model(sort, limit, spare)
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
    model.commit()


@given(st.integers(1, 4), st.lists(writes, min_size=5, max_size=40))
def test_a_window_with_room_for_all_documents_reads_once(limit: int, steps: list[tuple[Any, ...]]) -> None:
    model = Model("a", limit, spare=8)
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
        assert not model.window.needs_read
        model.commit()


def test_a_window_reads_when_the_documents_beyond_it_may_be_next():
    model = Model("a", 2, spare=1)
    for number, document_id in enumerate("abcde", 2):
        model.write(document_id, number)
    model.commit()
    model.write("a", None)
    needs_read = [model.window.needs_read]  # not yet: the spare document takes its place
    model.commit()
    model.write("b", None)
    needs_read.append(model.window.needs_read)
    assert needs_read == [False, True]
    model.read()
    (removed, added) = model.commit()
    assert [(removed.kind, removed.document.id), (added.kind, added.document.id)] == [("removed", "b"), ("added", "d")]
    assert (removed.old_index, removed.new_index, added.old_index, added.new_index) == (0, None, None, 1)
    assert added.event is None
