"""Who owns a consumer, keeps history or builds an index is decided by rows that only granted roles can write.

Clock jumps are simulated by moving `renewed_at`: only its distance from the server's clock counts.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc import Store
from pgdoc.cli import doctor
from pgdoc.cli.doctor import consumers
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.database.rights import CONSUMER_TABLES
from pgdoc.errors import ConsumerBusy, ConsumerLost, DatabaseError
from pgdoc.replication import slots
from pgdoc.streams.bookmarks import BookmarkKeeper
from pgdoc.streams.keeper_session import KeeperSession
from tests.integration.own_server.words import wait_until
from tests.security import owner_process
from tests.security.attacks import take_advisory_locks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, ChangeStream
    from tests.security.conftest import SharedDatabase

REFUSED = psycopg.errors.InsufficientPrivilege
PATIENCE_S = 30.0
NAME = "new"  # `attacks` locks what consumers of this name used
OWNER = "SELECT epoch, holder, pid, renewed_at, needs_lease FROM pgdoc.owners WHERE name = %s"
LATER, EARLIER = "interval '1 hour'", "interval '-1 hour'"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 2)
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("pgdoc.consumers.consumer._STANDBY_S", 0.05)
    monkeypatch.setattr("pgdoc.consumers.fence._PATIENCE_S", 0.1)


@pytest.fixture
def two_streamers(db: SharedDatabase) -> Iterator[tuple[Store, Store]]:
    """Stores of two roles that may have the same consumers, but not see each other's sessions."""
    with db.connect("superuser") as superuser:
        for statement in (
            "ALTER ROLE {reader} REPLICATION",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(CONSUMER_TABLES)} TO {{reader}}",
            "GRANT pg_signal_backend TO {reader}, {streamer}",
        ):
            names = {role: db.identifier(role) for role in ("reader", "streamer")}
            superuser.execute(sql.SQL(statement).format(**names))
    with db.store("streamer", auto_create=False) as one, db.store("reader", auto_create=False) as other:
        yield one, other


def take(stream: ChangeStream) -> ChangeEvent:
    event = stream.next(timeout=PATIENCE_S)
    assert event is not None
    return event


def insert(db: SharedDatabase, *ids: str) -> None:
    for document_id in ids:
        db.connect("writer").execute("INSERT INTO docs.orders (id, data) VALUES (%s, '{}')", [document_id])


def owner_of(db: SharedDatabase, name: str = NAME) -> Any:
    with db.connect("owner") as owner:  # closed at once: tests poll
        return owner.execute(OWNER, [name]).fetchone()


def jump(db: SharedDatabase, by: str) -> None:
    """Move the last renewal, as if the server's clock had jumped the other way since."""
    query = sql.SQL("UPDATE pgdoc.owners SET renewed_at = renewed_at + {}").format(sql.SQL(by))
    db.connect("owner").execute(query)


def hold_advisory_locks(db: SharedDatabase, *, waits: bool = True) -> None:
    """Hold every lock, and, if it `waits`, have a session wait for one. That keeps a snapshot, as any query does."""
    waiting = psycopg.connect(db.dsn("stranger"), autocommit=True)
    db._open.callback(waiting.close)  # leaving its context would wait for the lock
    take_advisory_locks(db.connect("stranger"), waiting)
    if not waits:
        db.connect("superuser").execute("SELECT pg_terminate_backend(%s, 5000)", [waiting.info.backend_pid])


def drop(store: Store) -> None:
    for status in store.consumers():
        store.drop_consumer(status.name)


def test_held_advisory_locks_keep_nobody_from_a_consumer(db: SharedDatabase, plugin: str) -> None:
    hold_advisory_locks(db)
    with db.store("streamer", plugin=plugin, auto_create=False) as store:
        stream = store["orders"].watch(consumer=NAME)
        standby = store["orders"].watch(consumer=NAME)
        insert(db, "1", "2")
        assert take(stream).document_id == "1"
        with store.transaction() as tx:
            stream.checkpoint(take(stream), tx)
        insert(db, "3")
        stream.close()
        assert take(standby).document_id == "3"
        standby.close()
        drop(store)


def test_held_advisory_locks_delay_neither_history_nor_indexes_nor_migrations(db: SharedDatabase) -> None:
    hold_advisory_locks(db, waits=False)  # CREATE INDEX CONCURRENTLY waits for snapshots
    with db.store("owner") as store:
        store["newer"].insert("1", {"a": 1})
        assert store["newer"].create_index("a")
        assert [index.paths for index in store["newer"].indexes()] == [("a",)]
        store.migrate()
    with db.store("streamer", auto_create=False) as streamer, streamer["orders"].watch():
        keeper = BookmarkKeeper(streamer._streams.hub.source, streamer._streams.hub)
        with contextlib.closing(KeeperSession(streamer._streams.hub.source)) as session:
            wait_until(lambda: slots.bookmarks(session.connection))
            keeper.keep(session)
            assert session.connection.execute("SELECT pgdoc.keeps_history()").fetchone() is not None


@pytest.mark.parametrize("role", ["stranger", "creator", "reader"])
def test_a_role_without_a_grant_can_neither_read_nor_write_ownership(db: SharedDatabase, role: str) -> None:
    with db.connect(role) as connection:
        for table in ("owners", "consumers", "consumer_progress", "sessions"):
            for statement in (
                f"SELECT * FROM pgdoc.{table}",
                f"DELETE FROM pgdoc.{table}",
                f"LOCK TABLE pgdoc.{table} IN ACCESS SHARE MODE",
                f"TRUNCATE pgdoc.{table}",
            ):
                with pytest.raises(REFUSED), connection.transaction():
                    connection.execute(statement.encode())
        for call in (
            "pgdoc.enter_hub()",
            "pgdoc.begin_index_build('docs.orders')",
            "pgdoc.note_session('history')",
            "pgdoc.is_open(NULL)",
        ):
            with pytest.raises(REFUSED):
                connection.execute(f"SELECT {call}".encode())
        with db.store(role, auto_create=False) as store:
            for refused in (store.consumers, lambda: store["orders"].watch(consumer=NAME)):
                with pytest.raises(DatabaseError, match=r"as the catalog's owner, run GRANT SELECT.* TO \"pgdoc_"):
                    refused()


def test_one_who_may_write_to_a_table_claims_its_index_builds_only(db: SharedDatabase) -> None:
    db.connect("owner").execute("CREATE TABLE docs.other (n int)")
    with db.connect("writer") as connection, connection.transaction():
        connection.execute("LOCK TABLE docs.orders IN ROW EXCLUSIVE MODE")
        with pytest.raises(REFUSED), connection.transaction():
            connection.execute("SELECT pgdoc.begin_index_build('docs.other')")


def test_an_owner_at_rest_writes_nothing_and_stays_the_owner(db: SharedDatabase) -> None:
    db.connect("superuser").execute(
        sql.SQL("ALTER ROLE {} SET idle_session_timeout = '300ms'").format(db.identifier("streamer"))
    )
    with db.store("streamer", auto_create=False) as store:
        with store["orders"].watch(consumer=NAME) as stream:
            assert stream.next(timeout=1.0) is None  # the first heartbeat stores where it begins
            before = owner_of(db)
            assert stream.next(timeout=2.5) is None  # longer than the lease
            assert owner_of(db) == before
            assert stream.stats().mode == "live"
        store.drop_consumer(NAME)


@pytest.mark.parametrize("by", [LATER, EARLIER])
def test_a_clock_that_jumps_takes_no_consumer_from_an_open_session(db: SharedDatabase, by: str) -> None:
    with db.store("streamer", auto_create=False) as store:
        with store["orders"].watch(consumer=NAME) as stream, store["orders"].watch(consumer=NAME) as standby:
            before = owner_of(db)
            jump(db, by)
            assert standby.next(timeout=0.5) is None
            with pytest.raises(ConsumerBusy):
                store["orders"].watch(consumer=NAME, wait=False)
            assert owner_of(db)[:3] == before[:3]
            insert(db, "1")
            assert take(stream).document_id == "1"
        drop(store)


def test_a_standby_that_cannot_see_the_owner_s_session_waits_for_its_lease(
    db: SharedDatabase, two_streamers: tuple[Store, Store]
) -> None:
    one, other = two_streamers
    with one["orders"].watch(consumer=NAME) as stream, other["orders"].watch(consumer=NAME) as standby:
        wait_until(lambda: owner_of(db)[4])
        before = owner_of(db)
        assert standby.next(timeout=2.5) is None  # longer than the lease, which the owner renews at rest now
        after = owner_of(db)
        assert (after[:3], after[3] > before[3]) == (before[:3], True)
        insert(db, "1")
        assert take(stream).document_id == "1"
    drop(one)


@pytest.mark.parametrize("by", [LATER, EARLIER])
def test_a_lease_ends_when_the_clock_jumps_and_the_former_owner_is_fenced(
    db: SharedDatabase, two_streamers: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    one, other = two_streamers
    stream = one["orders"].watch(consumer=NAME, auto_ack=False)
    insert(db, "1")
    event = take(stream)
    with other["orders"].watch(consumer=NAME, auto_ack=False) as standby:
        wait_until(lambda: owner_of(db)[4])
        owned = stream._consumer and stream._consumer._owned
        assert owned is not None
        monkeypatch.setattr(owned, "save", lambda **_: None)  # else it might renew between the jump and the claim
        jump(db, by)
        assert take(standby).document_id == "1"
        with pytest.raises(ConsumerLost), one.transaction() as tx:
            stream.checkpoint(event, tx)
    monkeypatch.undo()
    stream.close()
    drop(one)


def test_a_claim_with_the_same_epoch_and_another_holder_is_another_claim(db: SharedDatabase) -> None:
    """After a failover to a standby that lacks the last claim, its epoch is given out again."""
    with db.store("streamer", auto_create=False) as store:
        stream = store["orders"].watch(consumer=NAME, auto_ack=False)
        insert(db, "1")
        event = take(stream)
        for table in ("owners", "consumers"):
            db.connect("owner").execute(f"UPDATE pgdoc.{table} SET holder = %s".encode(), [uuid.uuid4()])
        with pytest.raises(ConsumerLost, match="taken over by another process"), store.transaction() as tx:
            stream.checkpoint(event, tx)
        with pytest.raises(ConsumerLost):
            take(stream)
        stream.close()
        with store["orders"].watch(consumer=NAME) as again:
            assert take(again).document_id == "1"
        drop(store)


def test_the_doctor_names_an_owner_that_is_silent(
    db: SharedDatabase, catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if catalog != "superuser":
        pytest.skip("only a role that sees the session's activity can tell")
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 60.0)
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 60)
    monkeypatch.setattr(consumers, "_SILENT", timedelta())
    monkeypatch.setattr(consumers, "_LEASE", timedelta())
    with db.store("streamer", auto_create=False) as store, store["orders"].watch(consumer=NAME):
        pid = owner_of(db)[2]
        (found,) = [each for each in doctor.examine_server(db.dsn("owner")) if each.subject == "consumers"]
        assert f"the owner of consumer {NAME}, pid {pid}, has been silent for " in found.text
        assert "its lease has expired: its process hangs or is cut off" in found.text
        assert found.fix == (f"SELECT pg_terminate_backend({pid})",)
    drop(db.store("owner"))


class Processes:
    """Processes of one consumer, which a test kills and pauses."""

    def __init__(self, dsn: str, count: int) -> None:
        self._dsn = dsn
        self._seeds = itertools.count()
        self.running = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.security.owner_process", self._dsn, NAME, str(next(self._seeds))]
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.DEVNULL)

    def disturb(self, chance: random.Random, owner_pid: int) -> None:
        """Kill one, mostly the owner, or pause it for less or more than its lease."""
        number = chance.randrange(len(self.running))
        if chance.random() < 0.8:
            number = next((n for n, process in enumerate(self.running) if process.pid == owner_pid), number)
        process = self.running[number]
        if chance.random() < 0.3:
            process.kill()
            process.wait()
            self.running[number] = self._start()
        else:
            process.send_signal(signal.SIGSTOP)
            time.sleep(chance.choice([0.3, 0.9, 1.5, 2.5]))
            process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        for process in self.running:
            with process:
                process.kill()


def test_no_two_owners_commit_in_one_epoch_and_epochs_never_go_back(db: SharedDatabase, catalog: str) -> None:
    """Three processes, killed and paused at random, also inside an open checkpoint."""
    if catalog != "superuser":
        pytest.skip("once is enough")
    disturbances = int(os.environ.get("PGDOC_TEST_DISTURBANCES", "12"))
    owner = db.connect("owner")
    owner.execute(owner_process.EFFECTS)
    writing = threading.Event()
    written: list[str] = []

    def write() -> None:
        with db.connect("writer") as writer:
            while not writing.is_set():
                written.append(pgdoc.new_id())
                writer.execute("INSERT INTO docs.orders (id, data) VALUES (%s, '{}')", [written[-1]])
                time.sleep(0.02)

    def count() -> int:
        return int(owner.execute("SELECT count(*) FROM public.effects").fetchone()[0])  # type: ignore[index]

    def claims() -> int:
        return int(owner.execute("SELECT count(DISTINCT holder) FROM public.effects").fetchone()[0])  # type: ignore[index]

    processes = Processes(db.dsn("owner"), 3)
    writer = threading.Thread(target=write)
    try:
        wait_until(lambda: (owner_of(db) or [0, 0, 0])[2])
        wait_until(lambda: owner.execute("SELECT FROM pgdoc.consumers WHERE place <> '{}'").fetchone() is not None)
        writer.start()
        wait_until(count)
        chance = random.Random(1)
        for number in range(disturbances * 10):
            if number >= disturbances and claims() > 2:
                break
            ((last,),) = owner.execute("SELECT process FROM public.effects ORDER BY number DESC LIMIT 1").fetchall()
            processes.disturb(chance, last)
        writing.set()
        writer.join()
        while (before := count()) < len(written):
            wait_until(lambda before=before: count() > before)  # type: ignore[misc]
    finally:
        writing.set()
        processes.kill()
    rows = owner.execute("SELECT epoch, holder, process, document_id FROM public.effects ORDER BY number").fetchall()
    epochs = [row[0] for row in rows]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == len({row[:3] for row in rows}) > 2
    assert [row[3] for row in rows] == written
    with db.store("owner") as store:
        wait_until(lambda: all(status.owner_pid is None for status in store.consumers()))
        drop(store)


# What a process of the version before revision 0007 runs.
FORMER_CHECKPOINT = "UPDATE pgdoc.consumers SET timeline = timeline WHERE name = %s AND epoch = %s RETURNING true"
FORMER_TAKEOVER = "UPDATE pgdoc.consumers SET epoch = epoch + 1 WHERE name = %s RETURNING epoch"


def test_a_consumer_of_the_former_catalog_goes_on_after_its_position(db: SharedDatabase, plugin: str) -> None:
    with (
        db.store("streamer", plugin=plugin, auto_create=False) as store,
        store["orders"].watch(consumer=NAME) as stream,
    ):
        insert(db, "1", "2", "3")
        assert [take(stream).document_id for _ in range(3)] == ["1", "2", "3"]
    downgrade(db.dsn("owner"), "0006")
    with db.connect("streamer") as former:
        ((epoch,),) = former.execute(FORMER_TAKEOVER.encode(), [NAME]).fetchall()
        assert former.execute(FORMER_CHECKPOINT.encode(), [NAME, epoch]).fetchone() == (True,)
        migrate(db.dsn("owner"))
        assert former.execute(FORMER_CHECKPOINT.encode(), [NAME, epoch]).fetchone() == (True,)
        assert former.execute(FORMER_TAKEOVER.encode(), [NAME]).fetchone() == (epoch + 1,)
        with db.store("streamer", plugin=plugin, auto_create=False) as store:
            with store["orders"].watch(consumer=NAME) as stream:
                insert(db, "4")
                assert [take(stream).document_id for _ in range(2)] == ["3", "4"]
                assert former.execute(FORMER_CHECKPOINT.encode(), [NAME, epoch + 1]).fetchone() is None
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="newer version of pgdoc"):
                    former.execute(FORMER_TAKEOVER.encode(), [NAME])
            drop(store)


def test_a_migration_that_a_reader_of_the_catalog_blocks_says_who(
    db: SharedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    downgrade(db.dsn("owner"), "0006")
    monkeypatch.setattr("pgdoc.database.migrate.BLOCKED_S", 1)
    with db.connect("stranger", autocommit=False) as stranger:
        stranger.execute("LOCK TABLE pgdoc.consumers IN ACCESS SHARE MODE")
        with pytest.raises(
            DatabaseError, match=f"waited too long for a lock.* pid {stranger.info.backend_pid} of role"
        ):
            migrate(db.dsn("owner"))
    monkeypatch.undo()
    migrate(db.dsn("owner"))
