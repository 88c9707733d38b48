from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.life import Existence, Life
from pgdoc.decoding.catalog_messages import read_message
from pgdoc.decoding.records import CollectionChange, Message, RowChange
from pgdoc.decoding.wal2json import read_images

WHEN = TransactionInfo(1, "2026-11-23 03:41:13+00", None)
NAMES = ("a", "b", "c", "d")


def read(**fields: Any) -> tuple[str, CollectionChange] | None:
    content = json.dumps({"collection": {"event": "drop", "schema": "docs", "name": "orders", **fields}})
    return read_message(Message(90, content))


def test_a_message_reports_a_change_of_a_collection():
    assert read() == ("docs", CollectionChange(90, "drop", "orders", message_bytes()))
    found = read(event="rename", renamed_to="sold", left=["sold", "users"])
    assert found is not None
    assert found[1].renamed_to == "sold"
    assert found[1].remaining == frozenset({"sold", "users"})
    assert found[1].complete


def message_bytes(**fields: Any) -> bytes:
    return json.dumps({"collection": {"event": "drop", "schema": "docs", "name": "orders", **fields}}).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "insert"},
        {"event": None},
        {"event": {}},
        {"name": ""},
        {"name": 7},
        {"schema": None},
        {"event": "rename"},
        {"event": "rename", "renamed_to": ["sold"]},
        {"renamed_to": "sold"},
    ],
)
def test_a_message_of_another_form_reports_nothing(fields):
    assert read(**fields) is None


@pytest.mark.parametrize("left", [7, ["a", 7], {"a": 1}, None])
def test_the_remaining_collections_are_used_only_if_they_are_a_list_of_names(left):
    found = read(left=left)
    assert found is not None
    assert found[1].remaining is None


@given(st.text() | st.text().map('{"collection":'.__add__) | st.just('{"collection":' + "[" * 100_000) | st.none())
def test_no_message_raises(content):
    read_message(Message(90, content))


def test_a_row_never_ends_a_stream():
    row = RowChange(90, "D", "a", b"", complete=True, read=read_images)
    assert Life(frozenset("a")).follow(Change((100, 90, 1, 0), WHEN, row)) is None


# A model: a schema whose collections come and go, and streams of some of them.


class Story:
    """The changes of a schema's collections, and which of them each stream has to see."""

    def __init__(self, existing: frozenset[str]) -> None:
        self.start = existing
        self.changes: list[Change] = []
        self.existing_after: list[frozenset[str]] = []

    @property
    def existing(self) -> frozenset[str]:
        return self.existing_after[-1] if self.existing_after else self.start

    def add(self, kind: str, name: str, renamed_to: str | None = None) -> None:
        remaining = {name} if kind in {"create", "schema"} else {renamed_to} if renamed_to else set()
        existing = self.existing - {name} | remaining
        lsn = 10 * len(self.changes) + 100
        left = None if kind in {"create", "schema"} else existing
        row = CollectionChange(lsn, kind, name, b"", renamed_to=renamed_to, detail=left)
        self.changes.append(Change((lsn + 5, lsn, 0, 0), WHEN, row))
        self.existing_after.append(existing)

    def concerning(self, names: frozenset[str], beyond: int) -> list[tuple[Change, frozenset[str]]]:
        reported = zip(self.changes[beyond:], self.existing_after[beyond:], strict=True)
        return [(each, existing) for each, existing in reported if {each.row.table, each.row.renamed_to} & names]


def existence(story: Story, beyond: int, *, at_change: bool) -> Existence:
    """Return what the registry says at the change that follows the first `beyond`, or just before it."""
    before = story.existing_after[beyond - 1] if beyond else story.start
    after = story.existing_after[beyond] if at_change else before
    commit_lsn = story.changes[beyond].position[0] - (0 if at_change else 1)
    was_there = {name: name in before for name in NAMES}
    return Existence(commit_lsn, {name: name in after for name in NAMES}, {**was_there})


def run(story: Story, names: frozenset[str], beyond: int, resumed: Existence | None = None) -> list[Change]:
    """Return what a stream delivers that starts after the first `beyond` changes."""
    life, delivered = Life(names), []
    if resumed is not None:
        life.resume(resumed)
    for change, _ in story.concerning(names, beyond):
        delivered.append(change)
        invalidate = life.follow(change)
        assert life.follow(change) == invalidate, "an interrupted call is repeated"
        if invalidate is not None:
            return [*delivered, invalidate]
    return delivered


class Lives(RuleBasedStateMachine):
    @initialize(existing=st.frozensets(st.sampled_from(NAMES)))
    def begin(self, existing):
        self.story = Story(existing)

    @precondition(lambda self: len(self.story.existing) < len(NAMES))
    @rule(data=st.data())
    def create(self, data):
        self.story.add("create", data.draw(st.sampled_from(sorted(set(NAMES) - self.story.existing))))

    @precondition(lambda self: self.story.existing)
    @rule(data=st.data())
    def drop(self, data):
        self.story.add("drop", data.draw(st.sampled_from(sorted(self.story.existing))))

    @precondition(lambda self: self.story.existing)
    @rule(data=st.data())
    def change_columns(self, data):
        self.story.add("schema", data.draw(st.sampled_from(sorted(self.story.existing))))

    @precondition(lambda self: 0 < len(self.story.existing) < len(NAMES))
    @rule(data=st.data())
    def rename(self, data):
        old = data.draw(st.sampled_from(sorted(self.story.existing)))
        self.story.add("rename", old, data.draw(st.sampled_from(sorted(set(NAMES) - self.story.existing))))

    @invariant()
    def a_stream_ends_at_the_first_change_that_leaves_it_no_collection(self):
        names = self.story.start & {"a", "b", "c"}
        if not names:
            return
        delivered = run(self.story, names, 0)
        expected: list[Any] = []
        for change, existing in self.story.concerning(names, 0):
            expected.append(change)
            if not existing & names:
                commit_lsn, lsn, kind, ordinal = change.position
                expected.append(((commit_lsn, lsn, kind, ordinal + 1), "invalidate", change.row.table))
                break
        reported = [
            (one.position, one.row.kind, one.row.table) if one.row.kind == "invalidate" else one for one in delivered
        ]
        assert reported == expected

    @invariant()
    def a_resumed_stream_delivers_the_rest_of_the_same_events(self):
        names = self.story.start & {"a", "b", "c"}
        whole = run(self.story, names, 0) if names else []
        for index, change in enumerate(whole):
            if change.row.kind == "invalidate":
                continue
            # Resumed at this event: the stream sees its change again, and does not deliver it.
            seen = self.story.changes.index(change)
            unknown = Existence(0, {}, {})  # before the registry existed
            for known in (existence(self.story, seen, at_change=True), unknown):
                assert run(self.story, names, seen, known) == whole[index:]
            rest = whole[index + 1 :]
            if rest and rest[0].row.kind != "invalidate":  # resumed at a row after it
                for known in (existence(self.story, seen + 1, at_change=False), unknown):
                    assert run(self.story, names, seen + 1, known) == rest

    @invariant()
    def a_stream_of_the_whole_schema_never_ends(self):
        life = Life(None)
        assert [life.follow(change) for change in self.story.changes] == [None] * len(self.story.changes)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=20)
