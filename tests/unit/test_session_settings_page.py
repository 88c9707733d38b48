"""The page on session settings lists those that the tests set, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.hostile_settings import HARMLESS, REFUSING

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "session-settings.md").read_text(encoding="utf-8")


def listed() -> set[str]:
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def hostile() -> set[str]:
    return {name for group in [*HARMLESS.values(), REFUSING] for name in group}


def test_every_setting_on_the_page_is_hostile() -> None:
    assert len(listed()) > 40
    assert listed() - hostile() == set()


def test_every_tested_setting_is_on_the_page() -> None:
    assert {name for name in hostile() if f"`{name}`" not in PAGE} == set()
