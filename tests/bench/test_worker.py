"""The benchmark of workers measures what it says, with small sizes."""

from __future__ import annotations

import pytest

from bench import worker
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation


@pytest.fixture(autouse=True)
def _needs_wal2json():
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        pytest.skip(str(error))


def test_every_way_handles_each_event_once(monkeypatch, capsys):
    """`check` raises if the effects are not what the worker counted."""
    monkeypatch.setattr(worker, "BATCHES", (10,))
    worker.measure_rates(worker.QUICK, "Worker, ")
    printed = capsys.readouterr().out
    for name in (worker.BARE, "AsyncWorker, one handler", "Worker, 4 handlers", "AsyncWorker, at least once"):
        assert f"\n{name} " in printed


def test_only_the_poisonous_event_has_no_effect(monkeypatch, capsys):
    monkeypatch.setattr(worker, "POISONED_BATCHES", (100,))
    worker.measure_poison(worker.QUICK)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " 100 " in line]
    assert [line[-1] for line in lines] == ["0", "1", "1"]
