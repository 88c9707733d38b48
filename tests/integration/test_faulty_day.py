"""A short day on which everything breaks; `tests/stress` has the long one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.faulty_day.day import run
from tests.faulty_day.plan import Day

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.fix_server import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it counts on what Linux does with a killed process")


def test_every_kind_of_fault_once(server: Server, tmp_path: Path) -> None:
    """The fixture is asked for so that the test is skipped where no server can be started."""
    day = Day(seconds=8, seed=1, changes_per_s=300, largest=500, pause_s=0.7, patience_s=90, cut_at_end=True)
    outcome = run(day, tmp_path)
    sys.stdout.write(f"{outcome}\n")
    outcome.raise_if_wrong()
