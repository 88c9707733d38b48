"""All of `make bench` runs, with small sizes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import results
from bench.sections import SECTIONS
from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server.installation import find_installation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder and the output of a quick run."""
    try:
        find_installation(plugin="wal2json")
    except (ServerNotFound, PluginMissing) as error:
        if os.environ.get("CI", "").lower() in {"true", "1"}:
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_quick_run_measures_every_part(run):
    folder, output = run
    found = results.load(folder / results.NAME)
    assert found.quick
    assert {figure.part for figure in found.figures} == {section.part for section in SECTIONS}
    for figure in found.figures:
        assert figure.name in output
        assert all(math.isfinite(value) for value in (*figure.values, *figure.reference_values)), figure


def test_a_quick_run_draws_every_chart(run):
    folder, _ = run
    for section in SECTIONS:
        root = ET.parse(folder / section.file).getroot()  # noqa: S314 (our own file)
        assert root.get("aria-label") == section.title


def test_a_reference_that_is_missing_is_named_in_the_output_and_the_json_file(run):
    folder, output = run
    skipped = results.load(folder / results.NAME).skipped
    assert set(skipped) <= {"MongoDB", "psycopg2"}
    for name, reason in skipped.items():
        assert f"!!! NOT measured: {name}: {reason}" in output
