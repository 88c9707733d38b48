"""Which events wait behind the letters of a handler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.workers.parking import Parked, parking_key

_KEYS = st.tuples(st.sampled_from("ab"), st.none() | st.sampled_from("123"))


def event(key: tuple[str, str | None]) -> Any:
    return SimpleNamespace(collection=key[0], document_id=key[1])


def conflict(one: tuple[str, str | None], other: tuple[str, str | None]) -> bool:
    return one[0] == other[0] and (one[1] == other[1] or one[1] is None or other[1] is None)


@given(st.lists(_KEYS, max_size=4), st.lists(_KEYS, max_size=8))
def test_an_event_waits_behind_each_letter_and_waiting_event_that_it_conflicts_with(
    letters: list[tuple[str, str | None]], keys: list[tuple[str, str | None]]
) -> None:
    events = [event(key) for key in keys]
    free, waiting = Parked(letters).split(events)
    ahead = list(letters)
    waits = []
    for each in events:
        waits.append(any(conflict(parking_key(each), key) for key in ahead))
        if waits[-1]:
            ahead.append(parking_key(each))
    numbers = {id(each): number for number, each in enumerate(events)}
    assert [numbers[id(each)] for each in waiting] == [number for number, wait in enumerate(waits) if wait]
    assert [numbers[id(each)] for each in free] == [number for number, wait in enumerate(waits) if not wait]


def test_nothing_waits_without_letters() -> None:
    events = [event(("a", None)), event(("a", "1"))]
    assert Parked().split(events) == (events, [])
    assert not Parked()
    assert Parked([("a", "1")])
