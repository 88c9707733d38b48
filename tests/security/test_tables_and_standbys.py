"""A table is added while the synchronous standby is away: its first rows are not lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.decoding.plugins import PLUGINS
from tests.fixtures.fix_server import PLUGIN
from tests.integration.own_server.words import wait_until
from tests.security.test_synchronous_standby import LOCAL, PATIENCE_S, admin, cluster, listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeStream
    from pgdoc.server import LocalServer

__all__ = ["admin", "cluster", "listing"]

_WAITING = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%add_table%')"


def take(stream: ChangeStream, count: int) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    for _ in range(count):
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, found
        found.append((str(event.event_type), event.collection, event.document_id))
    return found


@pytest.mark.parametrize("plugin", sorted(PLUGINS if PLUGIN == "auto" else [PLUGIN]))
def test_a_table_that_waits_for_its_standby_loses_no_row(
    cluster: LocalServer, admin: psycopg.Connection, listing: Callable[[str], None], plugin: str
) -> None:
    table = f"t_{plugin}"
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)".encode())
    local = psycopg.conninfo.make_conninfo(cluster.conninfo, options=LOCAL)
    with (
        Store(local, plugin=plugin) as store,
        Store(cluster.conninfo, plugin=plugin) as adding,
        psycopg.connect(local, autocommit=True) as writer,
        store.watch(tables=True) as stream,
        store.watch(tables=True, consumer=f"c_{plugin}") as consumer,
    ):
        start = stream.resume_token
        listing("nobody")
        thread = threading.Thread(target=adding.add_table, args=(f"public.{table}",))
        thread.start()
        wait_until(lambda: bool(admin.execute(_WAITING).fetchone()[0]))  # type: ignore[index]
        writer.execute("CREATE TABLE IF NOT EXISTS noise (n int)")
        listing("")
        thread.join()
        writer.execute(f"INSERT INTO {table} VALUES (1)".encode())
        expected = [("create", f"public.{table}", None), ("insert", f"public.{table}", "1")]
        assert take(stream, 2) == expected
        assert take(consumer, 2) == expected
        with store.watch(f"public.{table}", resume_after=start) as resumed:
            assert take(resumed, 2) == expected
        store.remove_table(f"public.{table}")
    with Store(local, plugin=plugin) as store:
        store.drop_consumer(f"c_{plugin}")
    admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
