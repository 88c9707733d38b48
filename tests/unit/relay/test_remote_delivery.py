"""What a stream of a log delivers, where an entry can't be read or the user interrupts it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pgdoc.errors import InvalidEvent
from pgdoc.relay.delivery import RemoteDelivery
from pgdoc.relay.finding import LogPosition
from pgdoc.relay.groups.delivery import GroupDelivery
from pgdoc.relay.groups.partition import OwnedPartition
from pgdoc.relay.inbox import EntryBatch, EntrySource, Inbox
from pgdoc.relay.log import LogEntry
from tests.made_logs import body_of, token_of

if TYPE_CHECKING:
    from pgdoc import ChangeEvent


def entries(count: int, damaged: int | None = None) -> list[LogEntry]:
    return [
        LogEntry(number, token_of(number), b"{" if number == damaged else body_of(number), None)
        for number in range(1, count + 1)
    ]


def with_batch(made: list[LogEntry], source: EntrySource) -> Inbox:
    inbox = Inbox(1000, 1 << 20)
    inbox.put(EntryBatch(made, 0, source))
    assert inbox.take(0)
    return inbox


def partition() -> OwnedPartition:
    return OwnedPartition(0, 1, LogPosition(0, token_of(0), "log"), 1)


def of_group(inbox: Inbox) -> GroupDelivery:
    return GroupDelivery(inbox, None, None, valid_until=lambda: time.monotonic() + 60, needs_claim=False)


def numbers(events: list[ChangeEvent]) -> list[int]:
    return [event.full_document.data["n"] for event in events if event.full_document is not None]


@pytest.mark.parametrize("in_group", [False, True])
@pytest.mark.parametrize("damaged", [2, 3, 7, 10])
def test_events_before_one_that_can_not_be_read_are_returned_first(damaged: int, *, in_group: bool) -> None:
    inbox = with_batch(entries(10, damaged), partition() if in_group else EntrySource())
    delivery = of_group(inbox) if in_group else RemoteDelivery(inbox, None, None)
    found: list[ChangeEvent] = []
    while len(found) < damaged - 1:
        found += delivery.next_events(100)
    assert numbers(found) == list(range(1, damaged))
    with pytest.raises(InvalidEvent):
        delivery.next_events(100)


def test_a_batch_that_is_interrupted_is_neither_lost_nor_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    source = partition()
    delivery = of_group(with_batch(entries(5), source))
    make = delivery._event_of

    def interrupted(entry: LogEntry) -> ChangeEvent | None:
        if entry.sequence == 3:
            raise KeyboardInterrupt
        return make(entry)

    monkeypatch.setattr(delivery, "_event_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delivery.next_events(100)
    monkeypatch.undo()
    delivery.acknowledge(None)  # as asking for the next batch does
    assert source.acknowledged.sequence == 0
    assert source.is_settled
    assert numbers(delivery.next_events(100)) == [1, 2, 3, 4, 5]
    assert delivery.delivered == 5
