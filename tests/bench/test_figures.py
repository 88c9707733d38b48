"""A figure is the median of ratios, and the JSON file keeps all of it."""

from __future__ import annotations

import importlib.util
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import PARTS, alone, main
from bench.figures import Figure, compare, in_turns, readable, table
from bench.goals import Goal

rounds = st.integers(1, 9).flatmap(
    lambda number: st.tuples(*[st.lists(st.floats(1e-6, 1e6), min_size=number, max_size=number)] * 2)
)


@given(values=rounds)
def test_the_json_of_a_figure_has_all_of_it(values):
    ours, reference = values
    (figure,) = compare("rates", {"ours": ours, "reference": reference}, "reference", "changes/s", x=10)
    entry = json.loads(json.dumps(figure.as_json()))
    assert Figure.from_json(entry) == figure
    assert json.loads(json.dumps(Figure.from_json(entry).as_json())) == entry


def test_a_disturbed_round_does_not_change_the_ratio():
    (figure,) = compare("rates", {"ours": [10, 1, 12], "reference": [20, 20, 24]}, "reference", "changes/s")
    assert (figure.ratio, min(figure.ratios)) == (0.5, 0.05)


def test_the_ways_take_turns():
    order: list[str] = []
    in_turns(2, {"reference": lambda: order.append("reference"), "ours": lambda: order.append("ours")})
    assert order == ["reference", "ours", "ours", "reference"]


def test_the_table_shows_the_ratio_and_the_reference():
    figures = compare(
        "rates", {"ours": [50, 150], "other": [1, 1], "pg": [200, 200]}, "pg", "changes/s", others=["other"]
    )
    assert [figure.is_pgdoc for figure in figures] == [True, False]
    line = next(line for line in table(figures).splitlines() if "ours" in line)
    assert line.split() == ["ours", "100", "changes/s", "0.50", "0.25", "0.75", "pg,", "200"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (5.678, "5.68"), (99.96, "100"), (176_432.1, "176,432")]
)
def test_a_readable_number_has_three_digits_or_all_before_the_point(value, text):
    assert readable(value) == text


@pytest.mark.parametrize(
    ("goal", "is_met"),
    [
        (Goal("", "rates", "ours", 0.5), True),
        (Goal("", "rates", "ours", 0.49), False),
        (Goal("", "rates", "ours", 0.5, at_most=False), True),
        (Goal("", "rates", "ours", 0.51, at_most=False), False),
        (Goal("", "rates", "ours", 10, of_median=True), True),
        (Goal("", "rates", "ours", 9, of_median=True), False),
    ],
)
def test_a_goal_is_met_within_its_limit(goal, is_met):
    (figure,) = compare("rates", {"ours": [10, 10], "reference": [20, 20]}, "reference", "us")
    assert goal.fits(figure)
    assert goal.is_met(figure) == is_met


@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_there(name):
    assert importlib.util.find_spec(f"bench.{name}") is not None


def test_the_benchmarks_of_documents_run_by_their_names():
    assert {"documents", "values", "updates", "bulk", "restart", "million"} <= set(alone())
    assert not set(alone()) & set(PARTS)
    assert all(alone().values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "nosuch: not among rates"),
        (["reading", "load"], "load: run each by itself"),
        (["latency", "--rounds", "0"], "--rounds must be at least 1, got 0"),
    ],
)
def test_an_argument_that_means_nothing_is_refused(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    monkeypatch.setattr("bench.__main__.run", lambda *_, **__: None)
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err
