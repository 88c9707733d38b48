"""The command that users can paste."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pgdoc.cli.invocation import own_command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs in a virtual environment below the working directory, which runs this process."""
    programs = tmp_path / "my project" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "pgdoc").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path / "my project")
    return programs


def test_a_program_that_is_not_on_path_is_named_by_its_path(venv, monkeypatch):
    assert own_command() == ".venv/bin/pgdoc"
    for folder in (venv, "/proc"):
        monkeypatch.chdir(folder)
        assert own_command() == f"'{venv}/pgdoc'"


def test_a_program_on_path_is_named_by_its_name(venv, monkeypatch):
    monkeypatch.setenv("PATH", str(venv))
    assert own_command() == "pgdoc"


def test_without_the_program_the_module_is_run(venv):
    (venv / "pgdoc").unlink()
    assert own_command() == ".venv/bin/python -m pgdoc"
