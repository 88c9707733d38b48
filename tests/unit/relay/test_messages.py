"""Messages, windows, and what is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import UnreadableDocument
from pgdoc.model.tokens import Mark
from pgdoc.relay import outbound
from pgdoc.relay.beginning import Beginning
from pgdoc.relay.flights import Flight, Flights
from pgdoc.relay.log import LogEnd
from pgdoc.relay.messages import MessagePart, after_parts, parts_of
from pgdoc.relay.outbound import Outbound
from pgdoc.relay.partitions import EVERY, encoded, partition_of
from tests.unit.relay.relayed import event, message, token

if TYPE_CHECKING:
    from pgdoc import ChangeEvent


@given(st.binary(max_size=200), st.integers(1, 50))
def test_parts_are_the_body_and_none_is_too_long(body: bytes, limit: int) -> None:
    parts = parts_of(message(1)._replace(body=body), limit)
    assert b"".join(part.body for part in parts) == body
    assert all(len(part.body) <= limit for part in parts)
    if len(parts) > 1:
        assert [part.part for part in parts] == [MessagePart(number, len(parts)) for number in range(1, len(parts) + 1)]
    for number in range(1, len(parts)):
        assert after_parts(parts, MessagePart(number, len(parts))) == parts[number:]
    assert after_parts(parts, None) == after_parts(parts, MessagePart(len(parts), len(parts))) == []
    assert after_parts(parts, MessagePart(1, len(parts) + 1)) == parts  # cut in another way: from its first part again


@given(st.text())
def test_encoded_names_have_safe_characters_and_are_all_different(text: str) -> None:
    found = encoded(text)
    assert set(found) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-%")
    assert encoded(text + ".") != found
    assert encoded(found) == found or "%" in found


def test_the_partition_is_what_the_page_says() -> None:
    assert partition_of("o-1", 16) == 10
    assert {partition_of(f"o-{n}", 4) for n in range(100)} == {0, 1, 2, 3}
    assert partition_of(None, 4) == EVERY
    assert 0 <= partition_of("\ud800", 4) < 4


def windows(events: list[ChangeEvent], beginning: Beginning | None = None, **options: Any) -> list[tuple[int, Any]]:
    made = Outbound(beginning or Beginning(), partitions=4, limit=options.pop("limit", 10_000), **options)
    found = []
    for window, last in made.windows_of(events):
        assert sum(len(each.body) for each in window[:-1]) < outbound.WINDOW_BYTES
        found.append((len(window), None if last is None else last.document_id))
    return found


def test_windows_are_bounded_by_bytes_and_may_end_inside_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "WINDOW_BYTES", 3000)
    assert windows([]) == []
    assert windows([event(n, 100) for n in range(1, 4)]) == [(3, "o-3")]
    assert windows([event(n, 2800) for n in range(1, 4)]) == [(1, "o-1"), (1, "o-2"), (1, "o-3")]
    assert windows([event(1, 10), event(2, 5000)], limit=1000) == [(4, None), (3, "o-2")]


def test_events_that_the_log_has_are_left_out() -> None:
    events = [event(n) for n in range(1, 6)]
    assert windows(events, Beginning(token(3))) == [(2, "o-5")]
    assert windows(events, Beginning(token(5))) == [(0, "o-5")]
    assert windows(events, Beginning(skip_count=4)) == [(1, "o-5")]
    assert windows([event(1, 2000), event(2)], Beginning(token(1), MessagePart(1, 3)), limit=1000) == [(3, "o-2")]


def test_what_comes_before_an_unreadable_event_is_sent() -> None:
    class Unreadable:
        def __getattr__(self, name: str) -> object:
            raise UnreadableDocument("too deep")

    events: list[Any] = [event(1), Unreadable(), event(3)]
    made = Outbound(Beginning(), partitions=4, limit=1000).windows_of(events)
    assert len(next(made)[0]) == 1
    with pytest.raises(UnreadableDocument):
        next(made)
    errors: list[UnreadableDocument] = []
    assert windows(events, leave_out=errors.append) == [(2, "o-3")]
    assert len(errors) == 1


def test_flights_know_what_a_log_lacks_of_them() -> None:
    flights: Flights[None] = Flights(10)
    for first in (1, 3, 5):
        window = [message(first), message(first + 1)]
        flights.add(Flight(window, Mark((first + 1,)), None))
    assert flights.has_within(LogEnd(10, None, None, ""))
    assert flights.has_within(LogEnd(13, str(token(3)), None, ""))
    assert flights.has_within(LogEnd(13, None, None, ""))
    assert not flights.has_within(LogEnd(13, str(token(4)), None, ""))
    assert not flights.has_within(LogEnd(13, str(token(3)), MessagePart(1, 2), ""))
    assert not flights.has_within(LogEnd(9, str(token(4)), None, ""))
    assert not flights.has_within(LogEnd(17, str(token(4)), None, ""))
    flights.land()
    assert flights.acknowledged == 12
    rest = flights.rest(LogEnd(13, str(token(3)), None, ""))
    assert rest == [([message(4)], Mark((4,))), ([message(5), message(6)], Mark((6,)))]
    assert (len(flights), flights.acknowledged) == (0, 13)
