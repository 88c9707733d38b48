"""Every code block of the README and the tutorial is run, in order, in one namespace a page, on a real server.

What a comment below a `print` says is what the block prints. The database of the example is the test's.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from typer.main import get_command

from pgdoc.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/tutorial.md"]
EXAMPLE = "postgresql://app@db/app"
LANGUAGES = {"python", "sql", "console"}


class Block(NamedTuple):
    language: str
    line: int
    code: str


def blocks(page: str) -> list[Block]:
    """Take the fenced blocks out of a page."""
    text = (ROOT / page).read_text()
    return [
        Block(found[1], text.count("\n", 0, found.start()) + 2, found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def promised(code: str) -> list[str]:
    """List what the comments below the prints say."""
    lines: list[str] = []
    below = False
    for line in (line.strip() for line in code.splitlines()):
        if below and line.startswith("# "):
            lines.append(line[2:])
        else:
            below = line.startswith("print(")
    return lines


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_of_a_block_that_is_run_or_checked(page: str) -> None:
    found = blocks(page)
    assert {block.language for block in found} <= LANGUAGES
    assert len(found) * 2 == (ROOT / page).read_text().count("```")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_do_what_they_say(
    page: str, dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGDOC_DSN", dsn)
    namespace: dict[str, Any] = {"__name__": "page"}
    ran = 0
    for block in blocks(page):
        if block.language == "python":
            code = block.code.replace(f'"{EXAMPLE}"', repr(dsn))
            exec(compile("\n" * (block.line - 1) + code, page, "exec"), namespace)  # noqa: S102 (that is the test)
            assert capsys.readouterr().out.splitlines() == promised(block.code), f"{page}:{block.line}"
            ran += 1
        elif block.language == "sql":
            with psycopg.connect(dsn) as connection:
                assert connection.execute(block.code.encode()).rowcount == 1, f"{page}:{block.line}"
    assert ran >= 4


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_exist(page: str) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(page):
        if block.language == "console":
            for line in block.code.splitlines():
                assert line.startswith("$ ")
                check_command(shlex.split(line[2:]), targets)


def check_command(words: list[str], targets: set[str]) -> None:
    """Check a line of a terminal without running it: it starts servers, or installs."""
    if words[0] == "make":
        assert words[1] in targets
    elif words[0] == ".venv/bin/pgdoc":
        commands = getattr(get_command(app), "commands")  # noqa: B009 (typer's class is its own)
        commands[words[1]].make_context(words[1], words[2:], resilient_parsing=False)
    elif words[0] == ".venv/bin/pip":
        extras = re.findall(r"\w+", words[2])
        known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert set(extras) <= set(known)
    else:
        assert words == ["python3", "-m", "venv", ".venv"]
