"""A slow stream (one second per event) does not slow down a fast one during 50,000 changes."""

from __future__ import annotations

import sys

import pytest

from tests.integration.test_slow_beside_fast import check
from tests.slow_beside_fast import Plan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_50_000_changes(private_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(private_dsn, "docs", alone=10_000, beside=50_000, rest_s=1.0, pace_s=0.001, buffer_size=10_000)
    found = check(plan, limit_kib=64 << 10)
    with capsys.disabled():
        sys.stdout.write(f"\n{found}\n")
