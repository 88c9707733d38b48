"""Any role can send a logical message that wal2json escapes to more than 1 GB."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from tests.integration.own_server.consumers import take

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

_MUCH_KB = 400 << 10


@pytest.mark.parametrize("transactional", [True, False])
def test_a_large_message_of_any_role_harms_nobody(
    private_server: LocalServer, private_dsn: str, transactional: bool
) -> None:
    with psycopg.connect(private_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE stranger LOGIN")
    with Store(private_dsn) as store, psycopg.connect(private_server.conninfo_for("postgres", "stranger")) as stranger:
        orders = store.create_collection("orders")
        with orders.watch() as stream, orders.watch(consumer="one") as consumer:
            before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            stranger.execute("SELECT pg_logical_emit_message(%s, 'pgdoc', repeat(chr(1), 190000000))", [transactional])
            stranger.commit()
            orders.insert("after", {})
            assert [event.document_id for event in take(stream, 1) + take(consumer, 1)] == ["after", "after"]
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < _MUCH_KB
