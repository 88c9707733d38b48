"""The benchmark of models reads its document by each library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import models

if TYPE_CHECKING:
    import pytest


def test_a_document_is_read_as_each_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(models, "ROUNDS", 2)
    assert models.main() == 0
    printed = capsys.readouterr().out
    assert [name for name in ("dict", *models.MODELS) if f"\n{name} " not in printed] == []
