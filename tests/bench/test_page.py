"""The page about performance says what the JSON file says."""

from __future__ import annotations

import pytest

from bench import charts, goals, page, results
from bench.__main__ import alone
from bench.sections import SECTIONS

TEXT = results.PAGE.read_text(encoding="utf-8")
FOUND = results.load(results.FOLDER / results.NAME)


def test_the_tables_are_made_from_the_json_file():
    assert page.fill(TEXT, FOUND) == TEXT


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.part)
def test_each_chart_is_drawn_from_the_json_file(section):
    own = [figure for figure in FOUND.figures if figure.part == section.part]
    svg = (results.FOLDER / section.file).read_text(encoding="utf-8")
    assert own
    assert f'data-figures="{charts.digest(own)}"' in svg


def test_every_figure_belongs_to_a_section():
    assert {figure.part for figure in FOUND.figures} == {section.part for section in SECTIONS}


def test_every_goal_was_measured():
    assert [goal.text for goal, _, verdict in goals.judge(FOUND.figures) if verdict == "not measured"] == []


def test_each_goal_that_is_hard_to_reach_names_the_benchmark_that_shows_why():
    floors = {goal.floor for goal in goals.GOALS if goal.floor}
    assert floors <= alone().keys()
    assert all(f"python -m bench {name}" in TEXT for name in floors)
    missed = [goal for goal, _, verdict in goals.judge(FOUND.figures) if verdict.endswith(f"`bench {goal.floor}`")]
    assert {goal.floor for goal in missed} <= floors


def test_the_figures_are_not_those_of_a_quick_run():
    assert not FOUND.quick


def test_a_page_without_room_for_a_table_is_refused():
    with pytest.raises(ValueError, match="no block for rates"):
        page.fill(TEXT.replace("<!-- bench: rates -->", ""), FOUND)


def test_a_changed_figure_changes_the_page():
    figure = FOUND.figures[0]
    changed = type(figure)(**{**vars(figure), "values": tuple(2 * value for value in figure.values)})
    other = results.Results(**{**vars(FOUND), "figures": [changed, *FOUND.figures[1:]]})
    assert page.fill(TEXT, other) != TEXT
