"""The benchmark of live queries measures what it says, with small sizes."""

from __future__ import annotations

import pytest

from bench import live
from bench.live import QUERIES, SINGLE, Load
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation


@pytest.fixture
def wal2json() -> None:
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("wal2json")
def test_each_reader_gets_the_changes_that_it_asks_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`measure` raises if the readers get more changes than they ask for, and waits for all of them."""
    monkeypatch.setattr("sys.argv", ["live", "--quick", "--sizes", "3"])
    assert live.main() == 0
    head, own, shared = capsys.readouterr().out.splitlines()
    assert "live queries" in head
    assert own.startswith("3 own ")
    assert shared.startswith("3 shared ")


def test_a_change_concerns_one_reader_or_all():
    own, shared = (Load.of(7, is_shared=is_shared, quick=False) for is_shared in (False, True))
    assert [own.expected(kind, 10) for kind in (SINGLE, QUERIES)] == [10, 10]
    assert [shared.expected(kind, 10) for kind in (SINGLE, QUERIES)] == [10, 70]
    assert len({str(own.filter(number)) for number in range(7)}) == 7
    assert len({str(shared.filter(number)) for number in range(7)}) == 1
