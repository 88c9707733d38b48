from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pgdoc.changes.change import Change, TransactionInfo
from pgdoc.changes.life import Life
from pgdoc.decoding.catalog_messages import read_message
from pgdoc.decoding.records import CollectionChange, Message, RowChange
from pgdoc.decoding.wal2json import read_images

WHEN = TransactionInfo(1, "2026-11-23 03:41:13+00", None)
NAMES = ("a", "b", "c", "d")


def said(**fields: Any) -> tuple[str, CollectionChange] | None:
    content = json.dumps({"collection": {"event": "drop", "schema": "docs", "name": "orders", **fields}})
    return read_message(Message(90, content))


def test_what_a_message_says():
    assert said() == ("docs", CollectionChange(90, "drop", "orders", said_bytes()))
    found = said(event="rename", renamed_to="sold", left=["sold", "users"])
    assert found is not None
    assert found[1].renamed_to == "sold"
    assert found[1].remaining == frozenset({"sold", "users"})
    assert found[1].complete


def said_bytes(**fields: Any) -> bytes:
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
def test_a_message_that_says_nothing_sensible(fields):
    assert said(**fields) is None


@pytest.mark.parametrize("left", [7, ["a", 7], {"a": 1}, None])
def test_what_is_left_is_believed_only_where_it_is_a_list_of_names(left):
    found = said(left=left)
    assert found is not None
    assert found[1].remaining is None


@given(st.text() | st.text().map('{"collection":'.__add__) | st.just('{"collection":' + "[" * 100_000) | st.none())
def test_no_message_is_an_error(content):
    read_message(Message(90, content))


def test_a_row_ends_no_stream():
    row = RowChange(90, "D", "a", b"", complete=True, read=read_images)
    assert Life(frozenset("a")).follow(Change((100, 90, 1, 0), WHEN, row)) is None


# The model: a schema whose collections come and go, and streams on some of them -------------------------------------


class Story:
    """What happens to a schema's collections, and what each stream has to see of it."""

    def __init__(self, there: frozenset[str]) -> None:
        self.start = there
        self.changes: list[Change] = []
        self.there_after: list[frozenset[str]] = []

    @property
    def there(self) -> frozenset[str]:
        return self.there_after[-1] if self.there_after else self.start

    def add(self, kind: str, name: str, renamed_to: str | None = None) -> None:
        there = self.there - {name} | ({name} if kind == "create" else {renamed_to} if renamed_to else set())
        lsn = 10 * len(self.changes) + 100
        left = None if kind == "create" else there
        row = CollectionChange(lsn, kind, name, b"", renamed_to=renamed_to, remaining=left)
        self.changes.append(Change((lsn + 5, lsn, 0, 0), WHEN, row))
        self.there_after.append(there)

    def concerning(self, names: frozenset[str], beyond: int) -> list[tuple[Change, frozenset[str]]]:
        told = zip(self.changes[beyond:], self.there_after[beyond:], strict=True)
        return [(each, there) for each, there in told if {each.row.table, each.row.renamed_to} & names]


def run(story: Story, names: frozenset[str], beyond: int, *, resumed: bool) -> list[Change]:
    """Let a stream read the story, from behind its first changes."""
    life, given = Life(names, resumed=resumed), []
    for change, _ in story.concerning(names, beyond):
        given.append(change)
        invalidate = life.follow(change)
        assert life.follow(change) == invalidate, "a call that is interrupted is made again"
        if invalidate is not None:
            return [*given, invalidate]
    return given


class Lives(RuleBasedStateMachine):
    @initialize(there=st.frozensets(st.sampled_from(NAMES)))
    def begin(self, there):
        self.story = Story(there)

    @precondition(lambda self: len(self.story.there) < len(NAMES))
    @rule(data=st.data())
    def create(self, data):
        self.story.add("create", data.draw(st.sampled_from(sorted(set(NAMES) - self.story.there))))

    @precondition(lambda self: self.story.there)
    @rule(data=st.data())
    def drop(self, data):
        self.story.add("drop", data.draw(st.sampled_from(sorted(self.story.there))))

    @precondition(lambda self: 0 < len(self.story.there) < len(NAMES))
    @rule(data=st.data())
    def rename(self, data):
        old = data.draw(st.sampled_from(sorted(self.story.there)))
        self.story.add("rename", old, data.draw(st.sampled_from(sorted(set(NAMES) - self.story.there))))

    @invariant()
    def a_stream_ends_at_the_first_change_that_leaves_it_nothing(self):
        names = self.story.start & {"a", "b", "c"}
        if not names:
            return
        given = run(self.story, names, 0, resumed=False)
        expected: list[Any] = []
        for change, there in self.story.concerning(names, 0):
            expected.append(change)
            if not there & names:
                commit_lsn, lsn, kind, ordinal = change.position
                expected.append(((commit_lsn, lsn, kind, ordinal + 1), "invalidate", change.row.table))
                break
        told = [(one.position, one.row.kind, one.row.table) if one.row.kind == "invalidate" else one for one in given]
        assert told == expected

    @invariant()
    def resumed_anywhere_it_gives_the_rest_of_the_same(self):
        names = self.story.start & {"a", "b", "c"}
        whole = run(self.story, names, 0, resumed=False) if names else []
        for index, change in enumerate(whole):
            if change.row.kind == "invalidate":
                continue
            # From the token itself: the stream sees this change again, and does not give it.
            seen = self.story.changes.index(change)
            assert run(self.story, names, seen, resumed=True) == whole[index:]
            rest = whole[index + 1 :]
            if rest and rest[0].row.kind != "invalidate":  # from the token of a row behind it
                assert run(self.story, names, seen + 1, resumed=True) == rest

    @invariant()
    def a_stream_on_the_whole_schema_never_ends(self):
        life = Life(None)
        assert [life.follow(change) for change in self.story.changes] == [None] * len(self.story.changes)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=20)
