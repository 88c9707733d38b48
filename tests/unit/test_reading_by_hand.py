"""What `python -m bench reading_by_hand` and `ceiling` compare gives the same result."""

from __future__ import annotations

import sys

import orjson
import pytest

import pgdoc
from bench import reading_by_hand
from bench.counted import IDS, changes_of
from bench.rates import read_all_fields
from bench.reading_by_contract import READERS, EventByHand, difference, exactly
from pgdoc.changes.diff import diff
from pgdoc.changes.events import from_change


@pytest.mark.parametrize("plugin", reading_by_hand.HANDS)
def test_reading_by_hand_gives_what_the_events_have(plugin: str) -> None:
    hand = reading_by_hand.HANDS[plugin]
    for change in changes_of(plugin, 20):
        event = from_change(change, IDS)
        fields = event.to_dict()
        assert reading_by_hand.id_by_hand(hand, change) == event.document_id
        assert reading_by_hand.dict_by_hand(hand, change) == fields
        assert orjson.loads(reading_by_hand.json_by_hand(hand, change)) == orjson.loads(event.to_json())
        read = reading_by_hand.fields_by_hand(hand, change)
        for name in ("event_type", "document_id", "update_description", "metadata"):
            assert read[name] == fields[name]
        assert read["full_document"] == fields["full_document"]["data"]
        assert read["timestamp"] == event.timestamp


FIELDS = ("event_type", "document_id", "timestamp", "metadata")


@pytest.mark.parametrize("plugin", READERS)
def test_an_event_by_contract_has_the_fields_and_the_json_of_an_event(plugin: str) -> None:
    for change in changes_of(plugin, 40):
        event, by_hand = from_change(change, IDS), EventByHand(READERS[plugin], change, IDS)
        assert by_hand.to_json() == event.to_json()
        read_all_fields(by_hand)  # type: ignore[arg-type]
        for name in FIELDS:
            assert getattr(by_hand, name) == getattr(event, name)
        after = event.full_document
        assert after is not None
        assert by_hand.full_document.data == after.data
        assert by_hand.full_document is by_hand.full_document
        assert by_hand.resume_token.position == event.resume_token.position
        before, by_hand_before = event.full_document_before_change, by_hand.full_document_before_change
        assert (by_hand_before is None) is (before is None)
        if before is not None and by_hand_before is not None:
            assert by_hand_before.data == before.data
            description = event.update_description
            assert description is not None
            assert by_hand.update_description.updated_fields == description.updated_fields


def test_reading_by_contract_keeps_long_numbers_and_names_a_document_that_it_can_not_decode() -> None:
    assert exactly(f'{{"n": {2**70}}}') == {"n": 2**70}
    change = changes_of("pgoutput", 1)[0]
    broken = change._replace(row=change.row._replace(message=change.row.message.replace(b'"total"', b'"total')))
    event = EventByHand(READERS["pgoutput"], broken, IDS)
    with pytest.raises(pgdoc.UnreadableDocument, match=event.document_id):
        _ = event.full_document.data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "c": 2}, "d": 1}),
        ({"a.b": 1, "c": [1]}, {"a.b": 2, "c": [1]}),
        ({"a": 1, "b": 2}, {"b": 2}),
        ({"a": 1}, {"b": 1}),
        ({}, {"a": [1]}),
    ],
)
def test_a_difference_by_contract_is_that_of_an_update(old: dict[str, object], new: dict[str, object]) -> None:
    by_hand, expected = difference(old, new), diff(old, new)
    for name in ("updated_fields", "removed_fields", "truncated_arrays", "disambiguated_paths"):
        assert getattr(by_hand, name) == getattr(expected, name)


def test_every_kind_of_reading_is_timed_beside_one_by_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading_by_hand, "CHANGES", 20)
    monkeypatch.setattr(sys, "argv", ["reading_by_hand", "--rounds", "1"])
    assert reading_by_hand.main() == 0

    printed = capsys.readouterr().out
    assert all(f"{plugin}, {use}" in printed for plugin in reading_by_hand.HANDS for use in reading_by_hand.USES)
