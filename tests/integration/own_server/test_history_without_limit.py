"""Bookmarks on a server with unlimited max_slot_wal_keep_size."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pgdoc import Store
from pgdoc.replication import slots
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg


@pytest.fixture
def unlimited(owner: psycopg.Connection) -> Iterator[None]:
    """Set max_slot_wal_keep_size to unlimited: slots can fill the disk with WAL."""
    owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '-1'")
    owner.execute("SELECT pg_reload_conf()")
    wait_until(lambda: slots.is_unlimited(owner))
    yield
    owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
    owner.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("unlimited")
def test_on_a_server_without_limit_the_last_store_leaves_no_bookmark(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        store.migrate()
        assert slots.bookmarks(owner) == []
        with Store(dsn) as other:
            store.watch()
            other.watch()
            assert len(slots.bookmarks(owner)) == 1
        assert len(slots.bookmarks(owner)) == 1
    assert slots.bookmarks(owner) == []


@pytest.mark.usefixtures("unlimited")
def test_stores_that_close_at_once_leave_no_bookmark(dsn: str, owner: psycopg.Connection) -> None:
    for _ in range(5):
        stores = [Store(dsn) for _ in range(3)]
        for store in stores:
            store.watch()
        threads = [threading.Thread(target=store.close) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert slots.bookmarks(owner) == []


@pytest.mark.usefixtures("unlimited")
def test_the_owner_may_keep_history_on_a_server_without_limit(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        store.set_history(time=timedelta(hours=2))
        store.watch()
    assert len(slots.bookmarks(owner)) == 1
