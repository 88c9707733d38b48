"""Mirrors and live aggregates while the server is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import Store
from pgdoc.errors import ServerUnreachable
from tests.integration.own_server.words import PATIENCE_S

if TYPE_CHECKING:
    from pgdoc.server import LocalServer


def test_they_keep_what_they_have_while_the_server_is_away_and_catch_up(
    private_server: LocalServer, private_dsn: str
) -> None:
    with Store(private_dsn) as store:
        store["products"].insert("a", {"price": 1})
        with store.mirror("products") as mirror, store["products"].live_sum("price") as total:
            before = store.now()
            mirror.wait_for(before)
            with private_server.stopped():
                assert (mirror["a"]["price"], len(mirror), mirror.closed, int(total.value)) == (1, 1, False, 1)
                mirror.wait_for(before)  # needs no server
                with pytest.raises(ServerUnreachable):
                    mirror.wait_for(timeout=1)
            store["products"].insert("b", {"price": 2})
            mirror.wait_for()
            assert sorted(mirror) == ["a", "b"]
            change = total.next(timeout=PATIENCE_S)
            assert change is not None
            assert change.value == total.value == 3
