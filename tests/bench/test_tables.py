"""`python -m bench tables` runs, with small sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import tables
from bench.__main__ import alone
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation

ROOT = Path(__file__).parents[2]
HEADINGS = {
    "reading": ["changes per second", "CPU of pgdoc's thread", "CPU of the user's thread"],
    "writing": ["time of a write", "WAL of a write"],
    "adding": ["longest wait of a writer"],
    "snapshot": ["snapshot"],
}


def test_each_part_is_described_and_tested():
    assert "tables" in alone()
    assert HEADINGS.keys() == tables.PARTS.keys()
    assert all(f"\n    {part} " in (tables.__doc__ or "") for part in tables.PARTS)


def test_a_quick_run_measures_every_part():
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        if os.environ.get("CI", "").lower() in {"true", "1"}:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    command = [sys.executable, "-m", "bench", "tables", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [heading for headings in HEADINGS.values() for heading in headings if heading not in lines] == []
    for name in ("a table, to_json(), pgoutput", "DELETE, full, 300", "add_table", "snapshot and stream, wal2json"):
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_an_unknown_part_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench tables", "riting"])
    with pytest.raises(SystemExit) as ended:
        tables.main()
    assert (ended.value.code, "riting: not among reading, writing, adding, snapshot" in capsys.readouterr().err) == (
        2,
        True,
    )
