"""What prints as more than 1 GB: a logical message of any role that wal2json escapes, and a row."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import UnreadableChange

if TYPE_CHECKING:
    from pgdoc import ChangeStream
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


def test_a_row_of_more_than_1_gb_is_passed_by_a_consumer(private_dsn: str) -> None:
    """The row takes a few kB, and no output plugin can print it."""
    data = "SELECT jsonb_build_object('n', jsonb_agg(1e131071::numeric)) FROM generate_series(1, 8200)"
    with psycopg.connect(private_dsn, autocommit=True) as admin, Store(private_dsn) as store:
        store.create_collection("orders")
        store.create_collection("files", max_size=None)
        with store.watch(consumer="all", auto_ack=False) as stream:
            with admin.transaction():
                admin.execute("INSERT INTO docs.orders (id, data) VALUES ('before', '{}')")
                admin.execute(f"INSERT INTO docs.files (id, data) VALUES ('f', ({data}))".encode())
                admin.execute("INSERT INTO docs.orders (id, data) VALUES ('after', '{}')")
            with pytest.raises(UnreadableChange) as raised:
                stream.next(timeout=_PATIENCE_S)
        assert raised.value.collections == ("files",)
        store.skip("all", commit_lsn=raised.value.commit_lsn)
        store["orders"].insert("end", {})
        with store.watch(consumer="all", auto_ack=False) as stream:
            assert [id_of(stream) for _ in range(3)] == ["before", "after", "end"]
        assert store.drop_consumer("all")


def id_of(stream: ChangeStream) -> str | None:
    event = stream.next(timeout=_PATIENCE_S)
    assert event is not None
    return event.document_id
