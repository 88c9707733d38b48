"""What the guard of speed compares; `make guard` counts."""

from __future__ import annotations

import sys

import orjson
import pytest

from bench import instructions
from bench.counted import CHANGES, pieces_of, reference
from bench.messages import FRAMES
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.events import from_change
from pgdoc.changes.registry import Registry
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.decoding.records import Span

COUNTS = {"reference": [5_000, 6_000], "decode": [7_000, 7_500], "read": [4_000, 14_000]}
RATIOS = {"decode": 0.5, "read": 10.0}


def test_a_ratio_has_no_part_of_what_both_runs_do_before() -> None:
    assert instructions.ratios_of(COUNTS) == RATIOS


def test_a_piece_at_its_limit_passes_and_one_above_it_is_named() -> None:
    limits = {piece: ratio * 1.1 for piece, ratio in RATIOS.items()}
    assert instructions.compare(RATIOS, limits) == []
    (failure,) = instructions.compare({"decode": 0.5, "read": 11.5}, limits)
    assert failure.startswith("read is 15% slower: it takes 11.5 rounds of the fixed loop a change, its limit is 11;")
    assert "python -m bench instructions --renew" in failure


def test_a_piece_without_a_limit_and_a_limit_without_a_piece_fail() -> None:
    failures = instructions.compare({"new": 1.0}, {"gone": 1.0})
    assert [failure.split(" has ")[0] for failure in failures] == ["new", "gone"]


def test_a_limit_far_above_its_piece_is_reported() -> None:
    assert instructions.loose(RATIOS, {"decode": 0.55, "read": 11.0}) == []
    (line,) = instructions.loose(RATIOS, {"decode": 0.55, "read": 20.0})
    assert line.startswith("read ")


def test_new_limits_are_ten_percent_above_and_have_a_line_each() -> None:
    text = instructions.text_of(RATIOS)
    assert orjson.loads(text)["limits"] == {"decode": 0.55, "read": 11.0}
    assert b'\n    "decode": 0.55,\n' in text


def test_the_total_of_cachegrind_s_output_is_read() -> None:
    assert instructions.total("desc: Trace file\nfn=main\n1 2\nsummary: 1522594038\n") == 1_522_594_038
    with pytest.raises(instructions.CountError):
        instructions.total("desc: Trace file\n")


def test_without_valgrind_the_guard_fails_and_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["instructions"])
    assert instructions.main() == 1
    assert "NOT COUNTED: valgrind is not installed; on Debian, run:" in capsys.readouterr().err


def test_every_piece_that_is_counted_has_a_limit() -> None:
    pieces = {name for plugin in PLUGINS for name in pieces_of(plugin)}
    assert orjson.loads(instructions.LIMITS.read_bytes())["limits"].keys() == pieces


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_counted_work_runs(plugin: str) -> None:
    for work in pieces_of(plugin).values():
        work(CHANGES)
    reference(CHANGES)


def test_both_plugins_send_the_same_changes_half_of_them_updates() -> None:
    texts = {plugin: _events(plugin) for plugin in PLUGINS}
    assert texts["wal2json"] == texts["pgoutput"]
    events = [orjson.loads(text) for text in texts["wal2json"]]
    assert [event["event_type"] for event in events].count("update") == len(events) / 2 == CHANGES / 2
    assert len({event["resume_token"] for event in events}) == len(events)


def _events(plugin: str) -> list[bytes]:
    assembler = Assembler(0, Registry("docs", [Span(16_384, "docs", "orders", 0, None)]))
    changes = assembler.feed(PLUGINS[plugin].decoder("docs").decode(FRAMES[plugin](CHANGES))).changes
    return [from_change(change, (7_421, 1, 16_384)).to_json() for change in changes]
