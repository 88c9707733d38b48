"""A short faulty day with every kind of fault; `tests/stress` has the long one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faulty_day.day import run
from tests.faulty_day.plan import Day

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the test relies on how Linux handles killed processes")


@pytest.mark.usefixtures("both_plugins")  # the reference slot uses wal2json
def test_every_kind_of_fault_once(tmp_path: Path) -> None:
    day = Day(seconds=8, seed=1, changes_per_s=300, largest=500, pause_s=0.7, patience_s=90, cut_at_end=True)
    outcome = run(day, tmp_path)
    sys.stdout.write(f"{outcome}\n")
    outcome.raise_if_wrong()
