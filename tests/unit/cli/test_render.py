from __future__ import annotations

import io
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from pgdoc.changes.diff import diff
from pgdoc.changes.events import ChangeEvent, EventType
from pgdoc.cli.render import render_bytes, render_delay, render_event, shorten
from pgdoc.model.documents import Document
from pgdoc.model.positions import Position
from pgdoc.model.tokens import ResumeToken

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def document(data: dict[str, Any] | None, version: int = 1) -> Document | None:
    return None if data is None else Document("b-1", data, version, NOON, NOON)


def event(
    kind: str, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None, **metadata: Any
) -> ChangeEvent:
    described = diff(before, after) if kind == "update" and before is not None and after is not None else None
    return ChangeEvent(
        event_type=EventType(kind),
        collection="books",
        document_id="b-1",
        full_document=document(after, 2),
        full_document_before_change=document(before),
        update_description=described,
        resume_token=ResumeToken(Position(1), 1, 1),
        timestamp=NOON,
        transaction_id=7,
        metadata=metadata,
    )


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (event("insert", None, {"n": 1}), 'insert   books/b-1  {"n":1}'),
        (event("delete", {"n": 1}), 'delete   books/b-1  {"n":1}'),
        (event("update", {"n": 1}, {"n": 2}), "update   books/b-1  n 1 → 2"),
        (event("update", {"n": 1}, {"n": 1}), "update   books/b-1  nothing changed"),
        (event("update", {}, {"n": {"m": None}}), 'update   books/b-1  n added {"m":null}'),
        (event("update", {"a": {"": "x"}}, {"a": {}}), 'update   books/b-1  a. removed "x"'),
        (event("update", {"": 1}, {"": 2}), 'update   books/b-1  "" 1 → 2'),
        (event("update", {"a.b": [1, 2]}, {"a.b": [1]}), "update   books/b-1  a.b cut to 1 element"),
        (event("update", {"a": [{"0": 1}]}, {"a": [{"0": 2}]}), "update   books/b-1  a.0.0 1 → 2"),
        (replace(event("message"), topic="book.sold", payload={"n": 1}), 'message  book.sold/b-1  {"n":1}'),
        (replace(event("message"), topic="book.sold", document_id=None), "message  book.sold  null"),
        (event("replace", {"n": 1}, {"n": 2}), "replace  books/b-1  n 1 → 2"),
        (event("delete", {}, user="ann", request=17), "delete   books/b-1  {}  by ann  request=17"),
        (replace(event("truncate"), document_id=None), "truncate books"),
        (replace(event("create"), document_id=None), "create   books"),
        (replace(event("drop", user="ann"), document_id=None), "drop     books  by ann"),
        (replace(event("rename"), document_id=None, renamed_to="s\x1bold"), "rename   books  → s\\x1bold"),
        (
            replace(
                event("schema"),
                document_id=None,
                columns={"before": {"a": "integer", "b": "text"}, "after": {"a": "bigint", "c\x1b": "text"}},
            ),
            "schema   books  a integer → bigint, c\\x1b added text, b removed",
        ),
        (
            replace(event("invalidate"), document_id=None),
            "invalidate books  no watched collection is left: the stream ends",
        ),
    ],
)
def test_one_change_is_one_line(shown, line):
    assert render_event(shown).plain == line


def test_several_changes_stand_below():
    text = render_event(
        event("update", {"a": 1, "b": 1}, {"a": 2, "c": 3}, user="ann"), NOON + timedelta(microseconds=800)
    )
    assert text.plain.splitlines() == [
        "update   books/b-1  by ann  +0.8 ms",
        "         a 1 → 2",
        "         c added 3",
        "         b removed 1",
    ]


@pytest.fixture
def in_new_york(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_clock_is_the_local_time_of_the_commit_with_the_date_if_that_is_another_day(in_new_york):
    shown = replace(event("insert", None, {}), timestamp=NOON.replace(hour=3, microsecond=7_999))
    received = {hour: NOON.replace(hour=hour) for hour in (3, 4)}  # 23:00 and 0:00 in New York
    same, next_day = (render_event(shown, received[hour], shows_clock=True).plain for hour in (3, 4))
    assert same.startswith("23:00:00.007  insert   books/b-1  {}  +")
    assert next_day.startswith("2026-04-30 23:00:00.007  insert   books/b-1  {}  +")
    assert render_event(shown, shows_clock=True).plain.startswith("2026-04-30 23:00:00.007  insert ")


def test_the_token_stands_below_everything_else():
    one, several = event("delete", {}), event("update", {"a": 1, "b": 1}, {"a": 2, "b": 2})
    token = f"token {one.resume_token}"
    assert render_event(one, shows_token=True).plain.splitlines() == ["delete   books/b-1  {}", " " * 9 + token]
    lines = render_event(several, NOON, shows_clock=True, shows_token=True).plain.splitlines()
    assert [line.strip() for line in lines[1:]] == ["a 1 → 2", "b 1 → 2", token]
    assert {len(line) - len(line.lstrip()) for line in lines[1:]} == {len("12:00:00.000  ") + 9}


def test_many_changes_are_counted():
    before = {f"field{number}": 0 for number in range(1_000)}
    lines = render_event(event("update", before, dict.fromkeys(before, 1))).plain.splitlines()
    assert len(lines) == 7
    assert lines[-1].strip() == "… and 995 more"


def test_what_could_move_the_cursor_is_shown_escaped():
    nasty = "a\x1b[2J\n\u202eb"
    shown = replace(event("update", {nasty: nasty}, {nasty: "c"}, user=nasty), document_id=nasty, collection=nasty)
    assert render_event(shown).plain.isprintable()
    assert "\\x1b[2J\\n\\u202eb" in render_event(shown).plain


def test_markup_of_documents_is_no_markup():
    assert "[red]x[/red]" in render_event(event("insert", None, {"n": "[red]x[/red]"})).plain


def test_long_values_are_cut():
    assert shorten("x" * 100, 10) == '"xxxxxxxx…'
    assert len(render_event(event("insert", None, {"text": "é" * 10_000})).plain) < 120


def test_an_unreadable_document_is_shown_as_such():
    unreadable = Document.from_text("b-1", b"9" * 5_000, 1, NOON, NOON)
    text = render_event(replace(event("insert"), full_document=unreadable)).plain
    assert text.startswith("insert   books/b-1  unreadable: ")


def test_what_sql_writers_nested_deeper_than_pgdoc_writes_is_shown():
    deep: Any = None
    for _ in range(400):
        deep = [deep]
    assert render_event(event("update", {}, {"n": deep})).plain == "update   books/b-1  n added …"


def test_colour_is_for_terminals_only():
    shown = render_event(event("update", {"n": 1}, {"n": 2}))
    for terminal in (True, False):
        page = io.StringIO()
        Console(file=page, force_terminal=terminal, _environ={"TERM": "xterm"}).print(shown)
        assert ("\x1b[" in page.getvalue()) is terminal


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00012, "0.1 ms"), (0.9, "900.0 ms"), (1, "1.0 s"), (90, "1.5 min"), (5_400, "1.5 h"), (129_600, "1.5 d")],
)
def test_a_delay_has_the_unit_in_which_it_is_small(seconds, text):
    assert render_delay(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1 << 10, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_a_size_has_the_largest_unit_that_it_fills(size: int | None, text: str) -> None:
    assert render_bytes(size) == text


def test_paths_are_left_out_only_if_there_are_more_than_six() -> None:
    for count, last in ((6, "f5 added 1"), (7, "… and 2 more")):
        shown = render_event(event("update", {}, {f"f{number}": 1 for number in range(count)})).plain.splitlines()
        assert len(shown) == 7
        assert shown[-1].strip() == last
