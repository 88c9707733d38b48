"""The long faulty day: 15 minutes, or `PGDOC_DAY_S` seconds, with a new seed each time.

`PGDOC_DAY_SEED` repeats the faults and writes of a seed; their timing still differs between runs.
"""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faulty_day.day import run
from tests.faulty_day.plan import Day

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the test relies on how Linux handles killed processes")

SECONDS = float(os.environ.get("PGDOC_DAY_S", "900"))
SEED = int(os.environ.get("PGDOC_DAY_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)


@pytest.mark.usefixtures("both_plugins")  # the reference slot uses wal2json
def test_a_faulty_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(Day(seconds=SECONDS, seed=SEED, patience_s=900.0), tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {SEED}: {outcome}\n")
    outcome.raise_if_wrong()
