"""The table of guarantees names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")


def named() -> list[tuple[str, str]]:
    """Yield each file with each test that the table names for it."""
    file, found = "", []
    for word in re.findall(r"`([\w/]+\.py|test_\w+|Test\w+)`", TABLE):
        if word.endswith(".py"):
            file = word
        else:
            found.append((file, word))
    return found


def is_there(file: str, name: str) -> bool:
    path = TESTS / file
    found = path.is_file() and re.search(
        rf"^(async def|def|class) {name}\b|^{name} = ", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    return bool(found)


def test_each_guarantee_names_tests_that_are_there():
    pairs = named()
    assert len(pairs) > 50
    assert [pair for pair in pairs if not is_there(*pair)] == []
