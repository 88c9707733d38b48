"""`pgdoc doctor` checks what a failover needs on a primary of PostgreSQL 17 or newer; `stress` has the standby."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.cli.doctor import examine_server
from tests.doctoring import FAILOVER, finding, findings, left, mend, mends_failover, standby
from tests.integration.own_server.consumers import NAME, slot
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

pytestmark = pytest.mark.usefixtures("any_plugin")


def test_the_primary_s_side_of_a_failover_is_checked(primary_18: LocalServer, admin_18: psycopg.Connection) -> None:
    dsn = primary_18.conninfo
    with Store(dsn) as store:
        store.watch(consumer=NAME).close()
    assert [each for each in examine_server(dsn, only=FAILOVER) if each.subject == "failover"] == []
    admin_18.execute("SELECT pg_create_physical_replication_slot('lost_one', true)")
    assert finding(dsn, "no-standby", only=FAILOVER).verdict == "warn"
    admin_18.execute("ALTER SYSTEM SET synchronized_standby_slots = 'lost_one', 'never_was'")
    admin_18.execute("SELECT pg_reload_conf()")
    wait_until(lambda: bool(left(dsn, "standby-slot", only=FAILOVER)))
    values = [each.value for each in findings(dsn, "standby-slot", only=FAILOVER)]
    assert values == ["is inactive", "does not exist"]
    admin_18.execute("SELECT pg_drop_replication_slot('lost_one')")
    mends_failover(admin_18, dsn, "standby-slot")
    with standby(dsn, "Replica-1"):
        found = finding(dsn, "standby-without-slot", only=FAILOVER)
        assert found.fix == ("SELECT pg_create_physical_replication_slot('replica_1')",)
        mend(admin_18, dsn, found)
        found = finding(dsn, "standby-without-slot", only=FAILOVER)
        assert found.fix[0] == "ALTER SYSTEM SET primary_slot_name = 'replica_1'"
    with standby(dsn, "Replica-1", "replica_1"):
        wait_until(lambda: not left(dsn, "standby-without-slot", only=FAILOVER))
        assert finding(dsn, "standby-feedback", only=FAILOVER).object == "Replica-1"
        admin_18.execute(f"SELECT pg_copy_logical_replication_slot('{slot_of(dsn)}', 'flagless')")  # has no flag
        admin_18.execute(f"SELECT pg_drop_replication_slot('{slot_of(dsn)}')")
        admin_18.execute(f"SELECT pg_copy_logical_replication_slot('flagless', '{slot_of(dsn)}')")
        replication = make_conninfo(dsn, replication="database")
        with psycopg.connect(replication, autocommit=True) as connection:
            mends_failover(connection, dsn, "failover-flag", NAME)
        assert finding(dsn, "slot-sync", only=FAILOVER).fix[0] == "ALTER SYSTEM SET sync_replication_slots = 'on'"
        mends_failover(admin_18, dsn, "decoding-outruns-standby")
    admin_18.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'")
    weak = make_conninfo(dsn, user="clerk", password="x")  # noqa: S106
    mends_failover(admin_18, weak, "standbys-unseen")
    admin_18.execute("DROP ROLE clerk")
    with Store(dsn) as store:
        store.drop_consumer(NAME)


def slot_of(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row) as owner:
        return slot(owner)
