"""Which bookmarks are failover slots."""

from __future__ import annotations

from typing import NamedTuple

from pgdoc.streams.failover import FlagPlan, plan_flags

NOW = 0x6B000000


class Row(NamedTuple):
    name: str
    is_failover: bool = False
    fits: bool = False
    is_hub: bool = False
    has_feedback: bool = True
    now: float = float(NOW)


def bookmark(age_s: int, **state: bool) -> Row:
    return Row(f"pgdocb_5_{NOW - age_s:x}_abc", **state)


def hub(*, fits: bool) -> Row:
    return Row("pgdoch_5_abc", fits=fits, is_hub=True)


def test_without_a_standby_there_is_nothing_to_do() -> None:
    assert plan_flags([], has_hub=True) == FlagPlan({})


def test_the_newest_is_flagged_while_none_fits() -> None:
    old, new = bookmark(200), bookmark(100)
    assert plan_flags([old, new, hub(fits=True)], has_hub=True) == FlagPlan({new.name: True})


def test_another_one_is_due_once_the_standby_reports_what_it_keeps_and_the_hub_has_come_so_far() -> None:
    flagged = bookmark(100, is_failover=True)
    assert plan_flags([flagged, hub(fits=False)], has_hub=True) == FlagPlan({}, is_late=True)
    assert plan_flags([flagged, hub(fits=True)], has_hub=True) == FlagPlan({}, is_due=True)
    assert plan_flags([flagged], has_hub=False) == FlagPlan({}, is_due=True)
    assert plan_flags([flagged._replace(has_feedback=False)], has_hub=False) == FlagPlan({})


def test_those_that_fit_are_flagged_and_the_others_stay_until_one_was_surely_synchronized() -> None:
    stuck, fits = bookmark(100, is_failover=True), bookmark(10, fits=True)
    assert plan_flags([stuck, fits], has_hub=False) == FlagPlan({fits.name: True})
    fits = fits._replace(is_failover=True)
    assert plan_flags([stuck, fits], has_hub=False) == FlagPlan({})
    sure = bookmark(61, fits=True, is_failover=True)
    assert plan_flags([stuck, sure], has_hub=False) == FlagPlan({stuck.name: False})
