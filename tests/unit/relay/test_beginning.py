"""Where a relay goes on in a log."""

from __future__ import annotations

import pytest

from pgdoc.errors import LogGap
from pgdoc.model.tokens import SnapshotProgress
from pgdoc.relay.beginning import Beginning, StoredEnd, find_beginning
from pgdoc.relay.log import LogEnd
from pgdoc.relay.messages import MessagePart
from tests.unit.relay.relayed import token

INSIDE = [SnapshotProgress(("orders",), f"o-{n}", "digest", n) for n in range(5)]


def end(sequence: int, number: int | None, *, part: MessagePart | None = None, identity: str = "log") -> LogEnd:
    return LogEnd(sequence, None if number is None else str(token(number)), part, identity)


def begin(found: LogEnd, stored: StoredEnd | None = None, *, at: int = 3) -> Beginning:
    return find_beginning(found, stored, token(at), "nats://host/S")


def test_an_empty_log_that_nothing_was_stored_of_gets_everything() -> None:
    assert begin(end(0, None)) == Beginning()
    assert begin(end(0, None), StoredEnd(0, "another")) == Beginning()


def test_events_up_to_the_last_of_the_log_are_left_out() -> None:
    assert begin(end(9, 5)) == Beginning(token(5))
    assert begin(end(9, 5), StoredEnd(7, "log")) == Beginning(token(5), is_certain=True)
    assert begin(end(9, 5, part=MessagePart(2, 4)), StoredEnd(7, "log")) == Beginning(
        token(5), MessagePart(2, 4), is_certain=True
    )
    assert begin(end(9, 5, part=MessagePart(4, 4)), StoredEnd(7, "log")) == Beginning(token(5), is_certain=True)


def test_a_log_that_ends_before_the_consumer_is_filled_unless_it_had_everything() -> None:
    assert begin(end(9, 2)) == Beginning(token(2), is_gap=True)
    assert begin(end(9, 2), StoredEnd(10, "log")) == Beginning(token(2), is_gap=True)
    assert begin(end(9, 2), StoredEnd(9, "former")) == Beginning(token(2), is_gap=True)
    assert begin(end(9, 2), StoredEnd(9, "log")) == Beginning(token(2), is_certain=True)


def test_a_log_that_has_forgotten_its_end_is_counted() -> None:
    assert begin(end(9, None), StoredEnd(7, "log")) == Beginning(skip_count=2, is_certain=True)


@pytest.mark.parametrize(
    ("found", "stored"),
    [
        (end(9, None), None),
        (end(9, None), StoredEnd(7, "former")),
        (end(9, None), StoredEnd(12, "log")),
        (end(0, None), StoredEnd(7, "former")),
    ],
)
def test_a_log_that_lacks_nobody_knows_what_is_refused(found: LogEnd, stored: StoredEnd | None) -> None:
    with pytest.raises(LogGap, match="on_lost='continue'") as caught:
        begin(found, stored)
    assert caught.value.until == str(token(3))


def test_an_event_of_a_snapshot_begins_again_at_its_first_part() -> None:
    last, before = str(token(3, progress=INSIDE[2])), str(token(3, progress=INSIDE[1]))
    found = LogEnd(9, last, MessagePart(2, 5), "log", before)
    assert begin(found, StoredEnd(7, "log")).skip_to == token(3, progress=INSIDE[1])
    assert begin(found, StoredEnd(7, "log")).part is None
    assert begin(LogEnd(2, last, MessagePart(2, 5), "log")) == Beginning()
    assert begin(LogEnd(9, last, MessagePart(5, 5), "log", before)).skip_to == token(3, progress=INSIDE[2])


def test_a_position_of_another_timeline_is_the_same_position() -> None:
    former = LogEnd(9, str(token(3, timeline=1)), None, "log")
    assert not find_beginning(former, None, token(3, timeline=2), "").is_gap
    assert not token(3, timeline=1).comes_before(token(3, timeline=2))
