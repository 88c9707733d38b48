"""The benchmark of relays measures what it says, with small sizes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bench import relay

if TYPE_CHECKING:
    import pytest


def test_a_quick_run_shows_each_peer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["relay", "--quick", "--events", "600", "--sizes", "200"])
    monkeypatch.setattr(relay, "MOMENTS", 100)
    assert relay.main() == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.startswith(("stream ", "relay ", "by hand "))]
    rates = {line[0]: float(line[-6].replace(",", "")) for line in lines}
    assert "\n10 processes read the log: PostgreSQL takes " in printed
    assert set(rates) == {"stream", "relay", "by"}
    assert all(rate > 0 for rate in rates.values())
    assert "commit to a consumer of the stream" in printed
