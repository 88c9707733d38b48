"""Without the extra `webhooks`, a webhook relay says what to install."""

from __future__ import annotations

import importlib
import sys

import pytest

from pgdoc import MissingExtra


def test_without_httpx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "pgdoc.relay.posting", raising=False)
    with pytest.raises(MissingExtra, match=r"run pip install 'pgdoc\[webhooks\]'"):
        importlib.import_module("pgdoc.relay.posting")
