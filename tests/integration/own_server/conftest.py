"""A server that these tests may break, and a database on it per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import namedtuple_row

from pgdoc import Store
from pgdoc.database.migrate import migrate
from tests.fixtures.fix_leftovers import what_is_left
from tests.fixtures.fix_server import NOT_DURABLE, _connect_admin, local_server
from tests.integration.own_server.faults import drop_slots
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.server import LocalServer

SETTINGS = {
    **NOT_DURABLE,
    "max_replication_slots": 10,
    "max_wal_senders": 6,
    "max_prepared_transactions": 2,
    "max_wal_size": "4GB",
    "wal_sender_timeout": "3s",  # streams send a status update each second
}


@pytest.fixture(scope="package")
def cluster() -> Iterator[LocalServer]:
    """A server that also listens on TCP, with a password."""
    with local_server(port=0, settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def catalog(cluster: LocalServer) -> str:
    """The name of a database with the catalog."""
    with _connect_admin(cluster) as admin:
        admin.execute("CREATE DATABASE catalog")
    migrate(cluster.conninfo_for("catalog"))
    return "catalog"


@pytest.fixture
def database(cluster: LocalServer, catalog: str) -> Iterator[str]:
    """The name of a new database with the catalog and without bookmarks; the server may restart during the test."""
    with _connect_admin(cluster) as admin:
        admin.execute(f"CREATE DATABASE test TEMPLATE {catalog} STRATEGY file_copy")  # as in `fix_server`
    yield "test"
    with _connect_admin(cluster) as admin:
        left = what_is_left(admin, "test")
        drop_slots(cluster)
        admin.execute("DROP DATABASE test WITH (FORCE)")
    assert not left, f"left behind at the server: {left}"


@pytest.fixture
def dsn(cluster: LocalServer, database: str) -> str:
    return cluster.conninfo_for(database)


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", int(str(conninfo_to_dict(dsn)["port"]))) as proxy:
        yield proxy


@pytest.fixture
def proxied_dsn(dsn: str, proxy: Proxy) -> str:
    """The conninfo of the server through the proxy."""
    return make_conninfo(dsn, port=proxy.port)


@pytest.fixture
def admin(cluster: LocalServer, database: str) -> Iterator[psycopg.Connection]:
    """A superuser connection to another database."""
    with _connect_admin(cluster) as admin:
        yield admin


@pytest.fixture
def owner(dsn: str) -> Iterator[psycopg.Connection]:
    """A superuser connection to the test database, with named rows."""
    with psycopg.connect(dsn, autocommit=True, row_factory=namedtuple_row) as owner:
        yield owner


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the polling intervals and timeouts of consumers."""
    monkeypatch.setattr("pgdoc.consumers.owned_slot._ADVANCE_S", 0.1)
    monkeypatch.setattr("pgdoc.consumers.sharing._FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr("pgdoc.consumers.sharing._LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr("pgdoc.consumers.consumer._STANDBY_S", 0.05)
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("pgdoc.consumers.ownership._LOCK_TIMEOUT_MS", 100)
    monkeypatch.setattr("pgdoc.consumers.fence._PATIENCE_S", 0.05)


@pytest.fixture
def store(dsn: str) -> Iterator[Store]:
    """A store; its consumers are dropped at the end."""
    with Store(dsn) as store:
        store.create_collection("orders")
        store.create_collection("audit")
        yield store
    with Store(dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)
