"""The documentation as `make docs` built it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def site() -> Path:
    """The folder of the built site."""
    folder = ROOT / "site"
    assert (folder / "index.html").exists(), "site/ has not been built: run make docs"
    return folder
