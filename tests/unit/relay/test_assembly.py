"""Putting the parts of large events together."""

from __future__ import annotations

import pytest

from pgdoc.errors import LogRefused
from pgdoc.relay.assembly import Assembly, InsideEvent
from pgdoc.relay.log import LogEntry
from pgdoc.relay.messages import MessagePart


def entry(sequence: int, token: str, body: bytes, part: tuple[int, int] | None = None) -> LogEntry:
    return LogEntry(sequence, token, body, None if part is None else MessagePart(*part))


WHOLE = entry(1, "a", b"one")
FIRST, SECOND, THIRD = (entry(number + 1, "b", b"%d" % number, (number, 3)) for number in (1, 2, 3))


def test_parts_become_one_entry_at_the_place_of_the_last_one() -> None:
    assembly = Assembly("the log")
    assert assembly.add([WHOLE, FIRST]) == [WHOLE]
    assert assembly.is_inside
    assert assembly.add([SECOND]) == []
    assert assembly.add([THIRD, entry(5, "c", b"x")]) == [entry(4, "b", b"123"), entry(5, "c", b"x")]
    assert not assembly.is_inside


def test_reading_that_begins_inside_an_event_is_told() -> None:
    with pytest.raises(InsideEvent) as inside:
        Assembly("the log").add([SECOND, THIRD])
    assert inside.value.token == "b"  # noqa: S105 (of an event)


def test_an_event_whose_beginning_is_forgotten_is_left_out() -> None:
    assembly = Assembly("the log")
    assembly.leave_out("b")
    assert assembly.add([SECOND, THIRD, entry(5, "c", b"x")]) == [entry(5, "c", b"x")]


@pytest.mark.parametrize(
    "again", [[entry(4, "b", b"12", (1, 2)), entry(5, "b", b"3", (2, 2))], [entry(4, "b", b"123")]]
)
def test_an_event_that_begins_again_replaces_its_first_parts(again: list[LogEntry]) -> None:
    assembly = Assembly("the log")
    found = assembly.add([FIRST, SECOND, *again])
    assert [each.body for each in found] == [b"123"]


@pytest.mark.parametrize("wrong", [THIRD, entry(3, "c", b"2", (2, 3)), entry(3, "b", b"2", (2, 4))])
def test_a_part_that_does_not_follow_is_refused(wrong: LogEntry) -> None:
    assembly = Assembly("the log")
    assembly.add([WHOLE, FIRST])
    with pytest.raises(LogRefused, match="not complete"):
        assembly.add([wrong])
