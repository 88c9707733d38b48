from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import _pgdoc_pytestplugin as plugin

if TYPE_CHECKING:
    import pytest


class OldConfig:
    """The configuration of a run with a pytest-asyncio that has no option for the loops of tests."""

    def __init__(self) -> None:
        self.pluginmanager = self
        self.registered: list[object] = []

    def is_registered(self, found: object) -> bool:
        return found is sys.modules["pytest_asyncio.plugin"]

    def register(self, *_args: object) -> None:
        self.registered.append(_args)

    def getini(self, name: str) -> Any:
        raise ValueError(f"unknown configuration value: {name!r}")


def test_an_old_pytest_asyncio_does_not_keep_other_tests_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_asyncio.plugin", ModuleType("pytest_asyncio.plugin"))
    config = OldConfig()
    plugin.pytest_configure(config)  # type: ignore[arg-type]
    assert config.registered == []
