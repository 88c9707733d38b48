"""`python -m bench partitions` runs, with small sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import alone
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation

ROOT = Path(__file__).parents[2]


def test_a_quick_run_measures_every_part():
    assert "partitions" in alone()
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        if os.environ.get("CI", "").lower() in {"true", "1"}:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    command = [sys.executable, "-m", "bench", "partitions", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("get, 16 partitions", "insert_many, 256 partitions", "pgoutput, 1 partition"):
        assert any(line.startswith(f"  {name} ") for line in done.stdout.splitlines()), name
