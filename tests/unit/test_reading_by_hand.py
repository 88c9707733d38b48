"""What `python -m bench reading_by_hand` compares gives the same result."""

from __future__ import annotations

import sys

import orjson
import pytest

from bench import reading_by_hand
from bench.counted import IDS, changes_of
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


def test_every_kind_of_reading_is_timed_beside_one_by_hand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading_by_hand, "CHANGES", 20)
    monkeypatch.setattr(sys, "argv", ["reading_by_hand", "--rounds", "1"])
    assert reading_by_hand.main() == 0

    printed = capsys.readouterr().out
    assert all(f"{plugin}, {use}" in printed for plugin in reading_by_hand.HANDS for use in reading_by_hand.USES)
