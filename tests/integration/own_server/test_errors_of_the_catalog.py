"""Errors of an unsuitable catalog or table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.database.catalog import REVISION
from pgdoc.errors import CatalogMissing, CatalogVersionMismatch, ReplicaIdentityChanged
from tests.fixtures.fix_server import _database
from tests.integration.own_server.words import (
    PATIENCE_S,
    said,
    said_by_both,
)

if TYPE_CHECKING:
    from pgdoc.server import LocalServer


def test_a_missing_catalog_says_how_to_create_it(cluster: LocalServer, admin: psycopg.Connection) -> None:
    with _database(cluster, admin, "template1", "bare") as name:
        assert said_by_both(CatalogMissing, cluster.conninfo_for(name)) == (
            "the database has no pgdoc catalog: create it with `pgdoc init` or `store.migrate()`"
        )


@pytest.mark.parametrize(("found", "cure"), [("0000", "run `pgdoc init`"), ("9999", "install a newer pgdoc")])
def test_a_catalog_of_another_version_says_what_to_do(dsn: str, found: str, cure: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE pgdoc.alembic_version SET version_num = %s", [found])
    with Store(dsn) as store:
        with pytest.raises(CatalogVersionMismatch) as raised:
            store.watch()
        assert (raised.value.found_version, raised.value.needed_version) == (found, REVISION)
    message = said_by_both(CatalogVersionMismatch, dsn)
    assert message == f"the pgdoc catalog is at revision {found}, but this version of pgdoc needs {REVISION}: {cure}"


def unrefused(owner: psycopg.Connection, ddl: str) -> None:
    """Execute DDL that pgdoc's event trigger would refuse."""
    owner.execute("SET session_replication_role = replica")
    owner.execute(ddl.encode())
    owner.execute("RESET session_replication_role")


@pytest.mark.parametrize("identity", ["DEFAULT", "NOTHING"])
def test_watching_a_table_without_replica_identity_full_is_refused(dsn: str, identity: str) -> None:
    with Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as owner:
        store.create_collection("orders")
        unrefused(owner, f"ALTER TABLE docs.orders REPLICA IDENTITY {identity}")
        message = said(ReplicaIdentityChanged, store["orders"].watch)
        assert 'collection "docs.orders" is not REPLICA IDENTITY FULL' in message
        assert 'run ALTER TABLE "docs"."orders" REPLICA IDENTITY FULL' in message
        store["users"].watch().close()
        store.watch().close()  # it did not name the collection
        owner.execute("ALTER TABLE docs.orders REPLICA IDENTITY FULL")
        store.watch().close()


@pytest.mark.parametrize("change", ["UPDATE docs.orders SET data = '{}' WHERE id = 'o-2'", "DELETE FROM docs.orders"])
def test_changing_the_replica_identity_under_a_stream_ends_it(dsn: str, change: str) -> None:
    with Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as owner, store.watch() as stream:
        store["orders"].insert("o-1", {})
        store["orders"].insert("o-2", {})
        unrefused(owner, "ALTER TABLE docs.orders REPLICA IDENTITY DEFAULT")
        store["orders"].insert("o-3", {})
        owner.execute(change)
        store["orders"].insert("o-4", {})
        events = [stream.next(timeout=PATIENCE_S) for _ in range(4)]
        assert [event.document_id for event in events if event] == [None, "o-1", "o-2", "o-3"]  # None: the create event
        message = said(ReplicaIdentityChanged, lambda: stream.next(timeout=PATIENCE_S))
        assert '"orders"' in message
        assert "REPLICA IDENTITY FULL" in message
        assert stream.closed
        assert stream.resume_token == events[-1].resume_token  # type: ignore[union-attr]
