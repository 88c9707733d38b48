"""How `pgdoc load` ends when it fails, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from pgdoc.cli.transfer import load_documents
from pgdoc.errors import ServerUnreachable

if TYPE_CHECKING:
    from pgdoc import Store


class LostStore:
    """A store whose server is lost in the middle of a load."""

    def __init__(self) -> None:
        self.is_lost = False

    def collections(self) -> list[str]:
        if self.is_lost:
            raise ServerUnreachable("the server is gone")
        return []

    def __getitem__(self, name: str) -> LostStore:
        return self

    def insert_many(self, _pairs: Any, **_: Any) -> int:
        self.is_lost = True
        raise KeyboardInterrupt


def test_a_load_reports_its_first_error_if_the_server_is_lost(tmp_path):
    path = tmp_path / "orders.jsonl"
    path.touch()
    with path.open("rb") as file, pytest.raises(KeyboardInterrupt):
        load_documents(file, cast("Store", LostStore()), "docs", "orders", "_id")
