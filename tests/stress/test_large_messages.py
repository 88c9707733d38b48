"""Any role can send a logical message that wal2json escapes to more than 1 GB."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import psycopg

from pgdoc import Store

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

_MUCH_KB = 400 << 10
_PATIENCE_S = 200.0  # the server writes 540 MB and reads them a few times


def test_a_large_message_of_any_role_harms_nobody(private_server: LocalServer, private_dsn: str) -> None:
    with psycopg.connect(private_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE stranger LOGIN")
    with (
        Store(private_dsn) as store,
        psycopg.connect(private_server.conninfo_for("postgres", "stranger")) as stranger,
        store["orders"].watch() as stream,
        store["orders"].watch(consumer="one") as consumer,
    ):
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stranger.execute("""SELECT pg_logical_emit_message(true, 'pgdoc', repeat('"', 540 << 20))""")
        stranger.commit()
        store["orders"].insert("after", {})
        for each in (stream, consumer):
            event = each.next(timeout=_PATIENCE_S)
            assert event is not None
            assert event.document_id == "after"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < _MUCH_KB
