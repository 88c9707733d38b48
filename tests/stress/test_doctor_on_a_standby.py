"""`pgdoc doctor` on a standby of PostgreSQL 18 that copies no slots, until its commands are run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store, new_id
from pgdoc.cli.doctor import examine_server
from pgdoc.server import LocalServer
from tests.doctoring import FAILOVER, finding, findings, left, mends_failover
from tests.fixtures.fix_server import NOT_DURABLE
from tests.integration.own_server.consumers import NAME, slot
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream


def slot_of(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row) as owner:
        return slot(owner)


@pytest.fixture
def replica(primary_18: LocalServer, admin_18: psycopg.Connection, bin_dir_18: Path) -> Iterator[LocalServer]:
    """A standby that copies no slots: its settings are those of most standbys."""
    admin_18.execute("SELECT pg_create_physical_replication_slot('standby_1', true)")
    with Store(primary_18.conninfo) as store:
        store.watch(consumer=NAME).close()
    with psycopg.connect(make_conninfo(primary_18.conninfo, replication="database"), autocommit=True) as connection:
        connection.execute(f"ALTER_REPLICATION_SLOT {slot_of(primary_18.conninfo)} (FAILOVER true)".encode())
    folder = Path(tempfile.mkdtemp(prefix="pgdoc-doctor-"))
    try:
        subprocess.run(
            [
                bin_dir_18 / "pg_basebackup",
                "-D",
                folder / "data",
                "-d",
                primary_18.conninfo,
                "-c",
                "fast",
                "-X",
                "stream",
            ],
            check=True,
            timeout=PATIENCE_S * 3,
        )
        (folder / "data" / "standby.signal").touch()
        assert primary_18.folder is not None
        owner = primary_18.folder.stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        settings = {**NOT_DURABLE, "primary_conninfo": make_conninfo(primary_18.conninfo, dbname="")}
        with LocalServer(folder, bin_dir=bin_dir_18, settings=settings) as replica:
            yield replica
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with Store(primary_18.conninfo) as store:
            store.drop_consumer(NAME)


def test_the_standby_s_side_of_a_failover_is_checked(primary_18: LocalServer, replica: LocalServer) -> None:
    dsn = replica.conninfo
    verdicts = {each.id: each.verdict for each in examine_server(dsn)}
    assert verdicts["standby"] == "unseen"
    assert finding(dsn, "standby", only=["server"]).verdict == "unseen"
    assert "check-failed" not in verdicts
    with psycopg.connect(dsn, autocommit=True) as connection:
        settings = {each.object for each in findings(dsn, "standby-setting", only=FAILOVER)}
        assert settings == {"sync_replication_slots", "hot_standby_feedback"}
        found = finding(dsn, "primary-conninfo", only=FAILOVER)
        ((command,),) = connection.execute(found.fix[0].removesuffix("\\gexec").encode()).fetchall()
        connection.execute(command.encode())
        mends_failover(connection, dsn, "standby-setting")
        mends_failover(connection, dsn, "primary-slot-name")
        connection.execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby_1'")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: bool(left(dsn, "standby-lists-slot", only=FAILOVER)))
        mends_failover(connection, dsn, "standby-lists-slot")
        wait_until(lambda: not left(dsn, "primary-conninfo", only=FAILOVER))
    wait_until(lambda: bool(left(dsn, "slot-not-ready", only=FAILOVER)))
    assert finding(dsn, "slot-not-ready", only=FAILOVER).object == NAME
    with (
        Store(primary_18.conninfo) as store,
        psycopg.connect(primary_18.conninfo, autocommit=True) as admin,
        store.watch(consumer=NAME) as stream,
    ):
        wait_until(lambda: _move_on(admin, store, stream) and not left(dsn, "slot-not-ready", only=FAILOVER))
    ready = [each for each in examine_server(dsn, only=FAILOVER) if each.id == "slot-ready"]
    assert [each.object for each in ready] == [NAME]


def _move_on(admin: psycopg.Connection, store: Store, stream: ChangeStream) -> bool:
    """Let the consumer read on: a copied slot is ready once that has moved what the primary keeps."""
    store["orders"].insert(new_id(), {})
    admin.execute("SELECT pg_log_standby_snapshot()")
    return stream.next(timeout=PATIENCE_S) is not None
