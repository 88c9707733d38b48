"""Which bookmarks are failover slots."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from pgdoc.streams.failover import FlagPlan, plan_flags

NOW = 0x6B000000


class Row(NamedTuple):
    name: str
    is_failover: bool = False
    fits: bool = False
    is_hub: bool = False
    has_feedback: bool = True
    behind: int = 0
    has_room: bool = True
    now: float = float(NOW)


def bookmark(age_s: int, suffix: str = "", **state: bool) -> Row:
    return Row(f"pgdocb_5_{NOW - age_s:x}_abc{suffix}", **state)


def consistent(age_s: int, **state: bool) -> Row:
    return bookmark(age_s, "_sync", **state)


def hub(*, fits: bool) -> Row:
    return Row("pgdoch_5_abc", fits=fits, is_hub=True)


def test_without_a_standby_there_is_nothing_to_do() -> None:
    assert plan_flags([], has_hub=True) == FlagPlan({})


def test_the_newest_is_flagged_while_none_fits() -> None:
    old, new = bookmark(200), bookmark(100)
    assert plan_flags([old, new, hub(fits=True)], has_hub=True) == FlagPlan({new.name: True})


def test_another_one_is_due_once_the_standby_reports_what_it_keeps_and_the_hub_has_come_so_far() -> None:
    flagged = bookmark(100, is_failover=True)
    assert plan_flags([flagged, hub(fits=False)], has_hub=True) == FlagPlan({}, is_late=True, is_near=True)
    assert plan_flags([flagged, hub(fits=True)], has_hub=True) == FlagPlan({}, is_due=True)
    assert plan_flags([flagged], has_hub=False) == FlagPlan({}, is_due=True)
    assert plan_flags([flagged._replace(has_feedback=False)], has_hub=False) == FlagPlan({})


def test_a_standby_that_takes_none_of_them_does_not_get_one_in_each_pass() -> None:
    rows = [bookmark(age, is_failover=True) for age in (200, 59)] + [hub(fits=True)]
    assert plan_flags(rows, has_hub=True) == FlagPlan({})
    rows[1] = bookmark(61, is_failover=True)
    assert plan_flags(rows, has_hub=True) == FlagPlan({}, is_due=True)


@pytest.mark.parametrize("state", [{"behind": (64 << 20) + 1}, {"has_room": False}])
def test_a_hub_that_does_not_fit_is_not_copied_where_that_costs_much(state: dict[str, Any]) -> None:
    rows = [bookmark(100, is_failover=True), hub(fits=False)._replace(**state)]
    assert plan_flags(rows, has_hub=True) == FlagPlan({}, is_late=True)


def test_those_that_fit_are_flagged_and_the_others_stay_until_one_was_surely_synchronized() -> None:
    stuck, fits = bookmark(100, is_failover=True), consistent(10, fits=True)
    assert plan_flags([stuck, fits], has_hub=False) == FlagPlan({fits.name: True})
    fits = fits._replace(is_failover=True)
    assert plan_flags([stuck, fits], has_hub=False) == FlagPlan({})
    sure = consistent(61, fits=True, is_failover=True)
    assert plan_flags([stuck, sure], has_hub=False) == FlagPlan({stuck.name: False})


def test_an_inconsistent_one_is_flagged_while_none_is_consistent_and_a_copy_is_due() -> None:
    old, new = bookmark(100), bookmark(50, fits=True)
    assert plan_flags([old, new], has_hub=False) == FlagPlan({new.name: True}, inconsistent=(new.name,))
    new, copy = new._replace(is_failover=True), consistent(40, fits=True)
    assert plan_flags([old, new, copy], has_hub=False) == FlagPlan({copy.name: True})


def test_a_copy_is_due_of_each_later_one_also_if_the_hub_s_slot_kept_its_rows() -> None:
    copy = consistent(1300, fits=True, is_failover=True)
    fits, does_not_fit = bookmark(100, fits=True), bookmark(50)
    later = (fits.name, does_not_fit.name)
    assert plan_flags([copy, fits, does_not_fit], has_hub=False) == FlagPlan({}, inconsistent=later)


@pytest.mark.parametrize("state", [{"behind": (1 << 30) + 1}, {"has_room": False}])
def test_no_copy_is_due_where_it_costs_much(state: dict[str, Any]) -> None:
    new = bookmark(50, fits=True, is_failover=True)._replace(**state)
    assert plan_flags([new], has_hub=False) == FlagPlan({})


def test_a_consistent_one_that_does_not_fit_counts_for_nothing() -> None:
    """It is older than a standby that was added later."""
    old, new = consistent(100), bookmark(50, fits=True)
    assert plan_flags([old, new], has_hub=False) == FlagPlan({new.name: True}, inconsistent=(new.name,))
