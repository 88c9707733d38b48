"""`pgdoc upgrade`: with pg_upgrade, and on a cluster that pretends to be upgraded."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Lsn, Store
from pgdoc.cli.app import run_cli
from pgdoc.consumers.slots import make_slot
from pgdoc.database.migrate import migrate
from pgdoc.errors import InvalidResumeToken, UpgradePrepared
from pgdoc.sql import statement
from pgdoc.upgrades import finish as finishing
from pgdoc.upgrades import moving
from pgdoc.upgrades import prepare as preparing
from tests.fixtures.fix_server import drop_database
from tests.integration.own_server.words import PATIENCE_S, said, wait_until
from tests.poison import insert_poison, make_poisonous
from tests.upgrades import old_server, upgraded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream
    from pgdoc.server import LocalServer

pytestmark = pytest.mark.usefixtures("any_plugin")

NAME = "billing"
SLOTS = "SELECT slot_name, plugin FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with old_server() as server:
        migrate(server.conninfo_for("template1"))
        yield server


@pytest.fixture
def dsn(server: LocalServer) -> Iterator[str]:
    """A database with a collection, a table for a consumer's effects, and a consumer that has read five events."""
    ask(server.conninfo, "CREATE DATABASE shop")
    dsn = server.conninfo_for("shop")
    fill(dsn)
    yield dsn
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        drop_database(admin, "shop")


def fill(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql, Store(dsn) as store:
        sql.execute("CREATE TABLE effects (id text PRIMARY KEY)")
        sql.execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        sql.execute("CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)")
        store.add_table("public.part")
        with store["orders"].watch(consumer=NAME) as stream:
            insert(store, range(5))
            take_effect(store, stream, 5)


def insert(store: Store, numbers: range) -> None:
    for number in numbers:
        store["orders"].insert(f"o-{number}", {"number": number})


def take_effect(store: Store, stream: ChangeStream, count: int) -> None:
    """Write the effects of the next events, each in a transaction with its checkpoint; a second one would fail."""
    for _ in range(count):
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        with store.transaction() as tx:
            tx.connection.execute("INSERT INTO public.effects VALUES (%s)", [event.document_id])
            stream.checkpoint(event, tx)


def check_goes_on(dsn: str, *, written: int) -> None:
    """Check that the consumer gets what is written now, and had all that was written before, once."""
    with Store(dsn) as store:
        assert store["orders"].count() == written
        insert(store, range(written, written + 3))
        with store["orders"].watch(consumer=NAME) as stream:
            take_effect(store, stream, 3)
            assert stream.next(timeout=0.2) is None
        with store["orders"].watch() as stream:
            insert(store, range(written + 3, written + 4))
            assert stream.next(timeout=PATIENCE_S) is not None
    with psycopg.connect(dsn) as sql:
        assert sql.execute("SELECT count(*) FROM effects").fetchone() == (written + 3,)


def upgrade(*arguments: str, dsn: str) -> int:
    return run_cli(["upgrade", *arguments, "--dsn", dsn, "--timeout", "0"])


def ask(dsn: str, query: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as sql:
        cursor = sql.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def pretend_upgrade(dsn: str) -> None:
    """Let the catalog believe that another cluster was prepared."""
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute("UPDATE pgdoc.upgrade SET system_id = 7")
        sql.execute("UPDATE pgdoc.identity SET system_id = 7")
        sql.execute("UPDATE pgdoc.consumers SET system_id = '7'")


def test_a_consumer_goes_on_after_pg_upgrade_with_every_event_once(
    server: LocalServer, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(dsn) as store, store["orders"].watch() as stream:
        insert(store, range(5, 6))
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        with store["orders"].watch(consumer=NAME) as consumer:
            take_effect(store, consumer, 1)
    assert upgrade("prepare", dsn=dsn) == 0
    assert ask(dsn, SLOTS) == []
    assert upgrade("prepare", dsn=dsn) == 0  # again: it changes nothing
    with upgraded(server) as new:
        dsn = new.conninfo_for("shop")
        with pytest.raises(psycopg.Error, match="prepared for an upgrade"):
            ask(dsn, "INSERT INTO docs.orders (id, data) VALUES ('early', '{}')")
        capsys.readouterr()
        assert upgrade("finish", "--plugin", "wal2json", dsn=dsn) == 1
        assert "has no output plugin wal2json" in capsys.readouterr().err
        assert upgrade("finish", "--json", dsn=dsn) == 0
        (found,) = [each for each in json.loads(capsys.readouterr().out)["databases"] if each["database"] == "shop"]
        ((name, plugin, _),) = [each.values() for each in found["consumers"]]
        assert (name, plugin) == (NAME, "pgoutput")
        with Store(dsn) as store:
            message = said(InvalidResumeToken, lambda: store["orders"].watch(resume_after=event.resume_token))
            assert "which was upgraded to this cluster" in message
            assert store.history().oldest is not None
            assert [table.name for table in store.tables()] == ["public.part"]
        check_goes_on(dsn, written=6)
        assert upgrade("finish", dsn=dsn) == 0
        assert "was finished before" in capsys.readouterr().out


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool) -> None:
    """Let the next call of a function be the last one of the process."""
    real = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(owner, name, real)
        if after:
            real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, call)


def takes_writes(dsn: str) -> bool:
    with Store(dsn) as store:
        try:
            store["orders"].insert("probe", {})
        except UpgradePrepared:
            return False
        store["orders"].delete("probe")
        return True


def test_a_consumer_that_nobody_has_open_and_is_behind_is_named_and_nothing_is_frozen(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(dsn) as store:
        insert(store, range(5, 7))
    assert upgrade("prepare", dsn=dsn) == 1
    heard = capsys.readouterr().err
    assert f'consumer "{NAME}" of database "shop" has yet to read a change of orders that commits at' in heard
    assert "nobody has it open" in heard
    assert takes_writes(dsn)
    with Store(dsn) as store, store["orders"].watch(consumer=NAME) as stream:
        take_effect(store, stream, 2)
        while stream.next(timeout=0.3) is not None:  # of the probe
            stream.ack()
    assert upgrade("prepare", dsn=dsn) == 0


def test_prepare_waits_until_an_open_consumer_has_read_everything_and_is_closed(
    dsn: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Store(dsn) as store:
        insert(store, range(5, 7))
        with store["orders"].watch(consumer=NAME) as stream:
            arguments = ["upgrade", "prepare", "--dsn", dsn, "--timeout", "60"]
            codes: list[int] = []
            thread = threading.Thread(target=lambda: codes.append(run_cli(arguments)), name="test-prepare")
            thread.start()
            heard = [""]

            def has_said(text: str) -> bool:
                heard[0] += capfd.readouterr().err
                return text in heard[0]

            wait_until(lambda: has_said("may have to read a change of orders"))
            take_effect(store, stream, 2)
            wait_until(lambda: has_said("has read everything: stop its program"))
            assert takes_writes(dsn)
            assert [stream.next(timeout=PATIENCE_S) is not None for _ in range(2)] == [True, True]
            stream.ack()
    thread.join()
    assert codes == [0]
    assert not takes_writes(dsn)


def test_cancel_lets_consumers_go_on_with_the_cluster_as_it_is(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade("prepare", "--cancel", dsn=dsn) == 0
    assert "shop: was not prepared" in capsys.readouterr().out
    assert upgrade("prepare", dsn=dsn) == 0
    with Store(dsn) as store, store["orders"].watch():
        said(UpgradePrepared, lambda: store["orders"].watch(consumer=NAME, on_lost="recreate"))
        said(UpgradePrepared, lambda: store.create_collection("more"))
        assert store["orders"].count() == 5
    assert ask(dsn, SLOTS) == []
    assert upgrade("prepare", "--cancel", dsn=dsn) == 0
    assert f"consumer {NAME} goes on at" in capsys.readouterr().out
    check_goes_on(dsn, written=5)


AROUND = (
    "INSERT INTO parts VALUES (1)",
    "COPY docs.orders (id, data) FROM PROGRAM 'echo 9'",
    "TRUNCATE parts",
    "SET session_replication_role = replica; DELETE FROM docs.orders",
    "UPDATE pgdoc.owners SET pid = 1",
)


def test_no_write_gets_around(dsn: str) -> None:
    assert upgrade("prepare", dsn=dsn) == 0
    for write in AROUND:
        with pytest.raises(psycopg.Error) as raised:
            ask(dsn, write)
        assert raised.value.sqlstate == "PGD06"


@pytest.mark.parametrize(("step", "after"), [("_has_sealed", False), ("_has_sealed", True), ("_drop_slots", False)])
def test_prepare_can_be_interrupted(dsn: str, monkeypatch: pytest.MonkeyPatch, step: str, after: bool) -> None:
    interrupt(monkeypatch, preparing._Preparation, step, after=after)
    assert upgrade("prepare", dsn=dsn) == 130
    assert takes_writes(dsn) == (step == "_has_sealed" and not after)
    if takes_writes(dsn):
        with Store(dsn) as store, store["orders"].watch(consumer=NAME) as stream:
            while stream.next(timeout=0.3) is not None:  # of the probes
                stream.ack()
    assert upgrade("prepare", dsn=dsn) == 0
    assert ask(dsn, SLOTS) == []
    pretend_upgrade(dsn)
    assert upgrade("finish", dsn=dsn) == 0
    check_goes_on(dsn, written=5)


def test_a_reader_that_keeps_the_freeze_from_being_undone_is_named(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preparing, "_THAW_LIMIT_S", 0.0)
    monkeypatch.setattr(moving, "LOCK_TIMEOUT", "100ms")
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn) as locking:
        reader.execute("SELECT FROM docs.orders")  # a freeze goes beside it
        locking.execute("SELECT FROM pgdoc.owners FOR UPDATE")
        assert upgrade("prepare", dsn=dsn) == 1
        locking.rollback()
        found = capsys.readouterr().err
        assert f"pid {reader.info.backend_pid} of role" in found
        assert "takes no writes until `pgdoc upgrade prepare --cancel` succeeds" in found
        interrupt(monkeypatch, preparing._Preparation, "_wait_and_seal", after=False)
        assert upgrade("prepare", dsn=dsn) == 1
        assert "takes no writes until" in capsys.readouterr().err
    assert not takes_writes(dsn)
    assert upgrade("prepare", "--cancel", dsn=dsn) == 0
    assert takes_writes(dsn)


def test_two_that_prepare_do_not_undo_what_the_other_has_checked(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = preparing._is_as_before

    def meet_another(*rows: Any) -> bool:
        monkeypatch.setattr(preparing, "_is_as_before", real)
        ask(dsn, "SELECT pgdoc.thaw()")  # the other takes this one for killed
        ask(dsn, "INSERT INTO docs.orders (id, data) VALUES ('o-5', '{}')")
        ask(dsn, "SELECT pgdoc.freeze()")
        return real(*rows)

    monkeypatch.setattr(preparing, "_is_as_before", meet_another)
    assert upgrade("prepare", dsn=dsn) == 1
    assert "something was written meanwhile" in capsys.readouterr().err
    with Store(dsn) as store, store["orders"].watch(consumer=NAME) as stream:
        take_effect(store, stream, 1)
    monkeypatch.setattr(preparing, "fetch_state", lambda _: None)  # the other has not frozen yet
    ask(dsn, "SELECT pgdoc.freeze()")
    assert upgrade("prepare", dsn=dsn) == 1
    assert 'another `pgdoc upgrade prepare` is at work in database "shop"' in capsys.readouterr().err
    monkeypatch.undo()
    assert not takes_writes(dsn)
    with Store(dsn) as store:
        assert store.status().is_frozen
    assert upgrade("prepare", dsn=dsn) == 0
    ask(dsn, f"BEGIN; {statement('upgrade', 'undo_freeze')}; COMMIT")
    assert not takes_writes(dsn)  # it was prepared meanwhile


def test_a_lock_on_claims_is_waited_for_until_the_time_limit(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(dsn) as locking:
        locking.execute("SELECT FROM pgdoc.owners FOR UPDATE")
        assert upgrade("prepare", dsn=dsn) == 1
        assert "a consumer was opened" in capsys.readouterr().err
        assert takes_writes(dsn)


def test_a_write_between_waiting_and_freezing_is_not_lost(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = moving.run_under_lock

    def write_first(*args: Any) -> None:
        monkeypatch.setattr(preparing, "run_under_lock", real)
        ask(dsn, "INSERT INTO docs.orders (id, data) VALUES ('o-5', '{}')")
        real(*args)

    monkeypatch.setattr(preparing, "run_under_lock", write_first)
    assert upgrade("prepare", dsn=dsn) == 1
    with Store(dsn) as store, store["orders"].watch(consumer=NAME) as stream:
        take_effect(store, stream, 1)
    assert upgrade("prepare", dsn=dsn) == 0


FINISHING: list[tuple[Any, str]] = [
    (finishing, "migrate"),
    (moving, "make_slot"),
    (moving, "_settle"),
    (finishing, "thaw"),
]


@pytest.mark.parametrize(("owner", "step"), FINISHING, ids=[name for _, name in FINISHING])
def test_finish_can_be_interrupted_after_each_step(
    dsn: str, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    assert upgrade("prepare", dsn=dsn) == 0
    pretend_upgrade(dsn)
    interrupt(monkeypatch, owner, step, after=True)
    assert upgrade("finish", dsn=dsn) == 130
    assert upgrade("finish", dsn=dsn) == 0
    check_goes_on(dsn, written=5)


def test_a_second_finish_does_not_take_a_slot_that_is_in_use(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upgrade("prepare", dsn=dsn) == 0
    pretend_upgrade(dsn)
    real = make_slot

    def come_second(*args: Any, **options: Any) -> int:
        monkeypatch.setattr(moving, "make_slot", real)
        assert upgrade("finish", dsn=dsn) == 0
        ask(dsn, "INSERT INTO docs.orders (id, data) VALUES ('o-5', '{}')")
        return real(*args, **options)

    monkeypatch.setattr(moving, "make_slot", come_second)
    assert upgrade("finish", dsn=dsn) == 1
    assert f'consumer "{NAME}" was moved by another run' in capsys.readouterr().err
    with Store(dsn) as store, store["orders"].watch(consumer=NAME) as stream:
        take_effect(store, stream, 1)


def test_finish_makes_a_slot_again_that_was_dropped_after_an_interrupt(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upgrade("prepare", dsn=dsn) == 0
    pretend_upgrade(dsn)
    interrupt(monkeypatch, moving, "_settle", after=True)
    assert upgrade("finish", dsn=dsn) == 130
    ask(dsn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
    assert upgrade("finish", dsn=dsn) == 0
    check_goes_on(dsn, written=5)


def test_finish_refuses_what_could_lose_events(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*arguments: str) -> str:
        assert upgrade("finish", *arguments, dsn=dsn) == 1
        return capsys.readouterr().err

    assert 'database "shop" was not prepared' in refusal()
    assert upgrade("prepare", dsn=dsn) == 0
    assert 'database "shop" is still on the cluster that was prepared' in refusal()
    pretend_upgrade(dsn)
    assert upgrade("prepare", dsn=dsn) == 1
    assert "run `pgdoc upgrade finish`" in capsys.readouterr().err
    assert upgrade("prepare", "--cancel", dsn=dsn) == 1
    ask(dsn, "ALTER TABLE docs.orders DISABLE TRIGGER pgdoc_frozen")
    assert 'table "docs.orders" takes writes, or is gone' in refusal()
    assert upgrade("finish", "--accept-losses", dsn=dsn) == 0
    check_goes_on(dsn, written=5)


def test_finish_refuses_to_leave_out_a_table(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade("prepare", dsn=dsn) == 0
    pretend_upgrade(dsn)
    ask(dsn, "ALTER TABLE docs.orders DROP CONSTRAINT orders_pkey")
    assert upgrade("finish", dsn=dsn) == 1
    assert "table docs.orders is not registered" in capsys.readouterr().err
    assert not takes_writes_in_sql(dsn)


def takes_writes_in_sql(dsn: str) -> bool:
    try:
        ask(dsn, "INSERT INTO docs.orders (id, data) VALUES ('sql', '{}')")
    except psycopg.Error:
        return False
    return True


def test_a_process_that_wakes_up_later_no_longer_owns_its_consumer(dsn: str) -> None:
    (before,) = ask(dsn, "SELECT epoch, holder FROM pgdoc.owners")
    assert upgrade("prepare", dsn=dsn) == 0
    (after,) = ask(dsn, "SELECT epoch, holder FROM pgdoc.owners")
    assert after[0] > before[0]
    assert after[1] != before[1]


def test_slots_of_others_are_named(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    ask(dsn, "SELECT pg_create_logical_replication_slot('other', 'test_decoding')")
    (is_checked,) = ask(dsn, "SELECT current_setting('server_version_num')::int >= 170000")[0]
    assert upgrade("prepare", dsn=dsn) == int(is_checked)
    found = capsys.readouterr()
    assert 'slot "other" of database "shop", which is not pgdoc\'s,' in found.err + found.out
    assert takes_writes(dsn) == is_checked
    assert upgrade("prepare", "--ignore-slots", dsn=dsn) == int(is_checked)  # `takes_writes` has written


def test_slots_of_a_catalog_that_was_dropped_are_named(
    server: LocalServer, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(dsn, "CREATE DATABASE bare TEMPLATE template0")
    ((oid,),) = ask(dsn, "SELECT oid FROM pg_database WHERE datname = 'bare'")
    bare = server.conninfo_for("bare")
    ask(bare, f"SELECT pg_create_logical_replication_slot('pgdoc_{oid}_left', 'pgoutput')")
    try:
        for options in ([], ["--only"]):
            assert upgrade("prepare", *options, dsn=dsn) == 0 or not options
            found = capsys.readouterr()
            assert ('_left" of database "bare", which has no pgdoc catalog,' in found.err + found.out) == (not options)
    finally:
        ask(bare, f"SELECT pg_drop_replication_slot('pgdoc_{oid}_left')")
        ask(dsn, "DROP DATABASE bare")


def test_what_belongs_to_nobody_or_is_prepared_is_named(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    ask(dsn, f"DELETE FROM pgdoc.consumers WHERE name = '{NAME}'")
    assert upgrade("prepare", dsn=dsn) == 1
    assert 'belongs to no consumer of database "shop"' in capsys.readouterr().err


def test_the_owner_of_the_catalog_upgrades_its_own_database(
    server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The owner is no superuser, and a member of the roles that own tables."""
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        admin.execute("CREATE ROLE owner LOGIN REPLICATION; CREATE ROLE team LOGIN; GRANT team TO owner")
        admin.execute("CREATE DATABASE owned OWNER owner TEMPLATE template0")
        admin.execute("CREATE DATABASE other")
    owned = server.conninfo_for("owned", "owner")
    try:
        migrate(owned)
        ask(owned, "CREATE SCHEMA docs; GRANT ALL ON SCHEMA docs TO team")
        ask(owned, "GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO team")
        with Store(server.conninfo_for("owned", "team")) as team, Store(owned) as store:
            team.create_collection("orders")
            store.watch(consumer=NAME).close()
        for dsn in (owned, server.conninfo_for("owned")):
            assert upgrade("prepare", dsn=dsn) == 1
            assert "run this with --only as that role" in capsys.readouterr().err
        assert upgrade("prepare", "--only", dsn=owned) == 0
        assert not takes_writes(owned)
        pretend_upgrade(server.conninfo_for("owned"))
        assert upgrade("finish", "--only", dsn=owned) == 0
        assert takes_writes(owned)
    finally:
        with psycopg.connect(server.conninfo, autocommit=True) as admin:
            drop_database(admin, "owned")
            drop_database(admin, "other")
        ask(server.conninfo, "DROP ROLE owner, team")


def test_a_consumer_that_stops_cleanly_has_passed_what_it_does_not_want(dsn: str) -> None:
    with Store(dsn) as store, store["orders"].watch(consumer=NAME, where={"event_type": "delete"}) as stream:
        store["others"].insert("1", {})
        insert(store, range(5, 6))
        store["orders"].delete("o-5")
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        stream.ack(event)
        store["others"].insert("2", {})
        (status,) = store.consumers()
        end = Lsn.parse(ask(dsn, "SELECT pg_current_wal_insert_lsn()::text")[0][0])
        wait_until(lambda: stream.stats().lag_bytes == 0 or status.place.lsn >= end)
    assert upgrade("prepare", dsn=dsn) == 0


def test_what_waiting_does_not_mend_is_named(
    dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal() -> str:
        assert upgrade("prepare", dsn=dsn) == 1
        assert takes_writes_in_sql(dsn)
        ask(dsn, "DELETE FROM docs.orders WHERE id = 'sql'")
        return capsys.readouterr().err

    monkeypatch.setattr(moving, "LOCK_TIMEOUT", "100ms")
    with psycopg.connect(dsn) as writer:
        writer.execute("DELETE FROM docs.orders WHERE id = 'o-1'")
        assert f"pid {writer.info.backend_pid} of role " in refusal()
        writer.rollback()
    with Store(dsn) as store, store["orders"].watch(consumer="late", snapshot=True) as stream:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        stream.ack(event)
    assert 'consumer "late" of database "shop" has yet to read its snapshot (nobody has it open' in refusal()
    ask(dsn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '_late$'")
    assert 'consumer "late" of database "shop" has lost its slot' in refusal()


def test_a_transaction_that_a_consumer_can_not_read_is_named(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql:
        make_poisonous(sql, "poisonous")
    with Store(dsn) as store, store["orders"].watch(consumer=NAME) as stream:
        insert(store, range(5, 6))
        take_effect(store, stream, 1)  # and so it has passed the new collection
    with psycopg.connect(dsn, autocommit=True) as sql:
        insert_poison(sql, "poisonous")
    assert upgrade("prepare", dsn=dsn) == 1
    heard = capsys.readouterr().err
    assert "a transaction that can't be read, and that `pgdoc consumers skip` passes (the server can't" in heard
