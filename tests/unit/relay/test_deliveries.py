"""The order in which the events of a batch are sent, and what is remembered of those that were."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from hypothesis import given
from hypothesis import strategies as st

from pgdoc.relay.deliveries import DeliveredEvents, StepOutcome, in_steps
from pgdoc.workers.failures import EventFailed
from tests.unit.relay.made_events import numbered

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ResumeToken

batches = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["orders", "users"])), max_size=12)


@given(batch=batches)
def test_documents_keep_their_order_and_events_of_collections_come_between(
    batch: list[tuple[str | None, str]],
) -> None:
    events = [numbered(number, key, collection) for number, (key, collection) in enumerate(batch, 1)]
    steps = [[token(each) for document in step for each in document] for step in in_steps(events)]
    assert sorted(each for step in steps for each in step) == [token(event) for event in events]
    for documents in in_steps(events):
        keys = [{(each.collection, each.document_id) for each in document} for document in documents]
        assert all(len(key) == 1 for key in keys)
        assert len({next(iter(key)) for key in keys}) == len(documents)  # each document once in a step
        assert all(document == sorted(document, key=token) for document in documents)
    for number, event in enumerate(events):
        if event.document_id is None:  # a step of its own, after all before it, and before all after it
            at = steps.index([token(event)])
            assert sorted(each for step in steps[:at] for each in step) == [token(each) for each in events[:number]]


def token(event: ChangeEvent) -> ResumeToken:
    return event.resume_token


def test_messages_without_a_key_are_sent_one_after_the_other_beside_documents() -> None:
    first, second = (cast("ChangeEvent", Message("message", "topic:a", None)) for _ in range(2))
    document = numbered(1, "o-1")
    assert list(in_steps([first, document, second])) == [[[first, second], [document]]]


class Message(NamedTuple):
    """What `in_steps` reads of an event."""

    event_type: str
    collection: str
    document_id: str | None


def test_a_delivered_event_is_known_until_events_beyond_it_come() -> None:
    events = [numbered(number, f"o-{number}") for number in range(1, 7)]
    delivered = DeliveredEvents()
    delivered.begin(events[:3])
    delivered.add(events[0])
    delivered.begin(events[:3])  # again, because another has failed
    assert [event in delivered for event in events[:3]] == [True, False, False]
    delivered.begin(events[1:2])  # it stands alone
    delivered.begin([])
    assert events[0] in delivered
    delivered.begin(events[3:])
    assert events[0] not in delivered


def test_a_dead_letter_that_is_tried_again_makes_nothing_forgotten() -> None:
    old, events = numbered(1, "a"), [numbered(number, "b") for number in range(5, 8)]
    delivered = DeliveredEvents()
    delivered.begin(events)
    delivered.add(events[0])
    delivered.begin([old])
    assert events[0] in delivered


def test_the_first_failure_in_the_order_of_events_counts() -> None:
    outcome = StepOutcome()
    assert outcome.failure is None
    for number in (3, 1, 2):
        outcome.fail(EventFailed(f"no {number}", numbered(number, "a")))
    assert str(outcome.failure) == "no 1"
    assert not outcome.is_halted
    outcome.postpone(3.0)
    outcome.postpone(1.0)
    assert (outcome.wait_s, outcome.is_halted) == (3.0, True)
