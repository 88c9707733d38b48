"""What a role does with its own collections, sessions and names ends and delays nothing of others."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from pgdoc import Store
from pgdoc.cli import doctor
from pgdoc.consumers import ownership, slots
from pgdoc.errors import ServerError
from pgdoc.replication.registry import follow_tables
from pgdoc.replication.slot_start import take_position
from pgdoc.streams.bookmarks import BookmarkKeeper
from pgdoc.streams.keeper_session import KeeperSession
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from pgdoc.replication.source import SlotStart
    from tests.security.conftest import SharedDatabase

PATIENCE_S = 30.0
NAME = "bystander"


@pytest.fixture
def registrar(db: SharedDatabase) -> psycopg.Connection:
    """The creator, who owns the collections `a` and `b`."""
    creator = db.identifier("creator")
    with db.connect("superuser") as superuser:
        for statement in (
            "GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO {}",
            "GRANT {} TO {}",
        ):
            superuser.execute(sql.SQL(statement).format(creator, db.identifier("owner")))
    connection = db.connect("creator")
    for name in ("a", "b"):
        connection.execute("SELECT pgdoc.create_collection('docs', %s)", [name])
    return connection


@pytest.mark.parametrize("catalog", ["owner"])  # where no event trigger follows DDL
def test_an_open_transaction_that_follows_tables_ends_no_consumer(
    db: SharedDatabase, registrar: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("pgdoc.streams.keeper_session.follow_tables", lambda _: None)  # leaves it to the consumer
    prepared = threading.Event()
    monkeypatch.setattr(ownership, "follow_tables", lambda each: follow_tables(each) if prepared.is_set() else None)
    is_followed = "SELECT pgdoc.is_followed()"
    owner = db.connect("owner")
    with db.store("streamer", auto_create=False) as store, psycopg.connect(db.dsn("streamer")) as other:
        with store["orders"].watch(consumer=NAME) as stream:
            registrar.execute("ALTER TABLE docs.b RENAME TO c")
            other.execute("SELECT pgdoc.follow_tables()")
            registrar.execute("ALTER TABLE docs.a RENAME TO b")  # the registry's row of this name is locked
            prepared.set()
            assert stream.next(timeout=3.0) is None
            with store["orders"].watch(resume_after=stream.resume_token):  # does not wait either
                pass
            assert owner.execute(is_followed).fetchone() == (False,)
            other.rollback()
            wait_until(lambda: owner.execute(is_followed).fetchone() == (True,))
            db.connect("writer").execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "1"
        store.drop_consumer(NAME)


@pytest.mark.parametrize("catalog", ["owner"])
def test_ddl_of_another_collection_that_is_found_late_loses_no_consumer(
    db: SharedDatabase, registrar: psycopg.Connection, both_plugins: None
) -> None:
    with db.store("streamer", plugin="wal2json", auto_create=False) as store:
        with store["orders"].watch(consumer=NAME):
            pass
        registrar.execute("ALTER TABLE docs.a RENAME TO c")
        registrar.execute("SELECT pgdoc.follow_tables()")
        db.connect("writer").execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
        with store["orders"].watch(consumer=NAME) as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "1"
        store.drop_consumer(NAME)


class HubWithoutServer:
    """A hub whose connection is lost; it still names the slot that it had."""

    is_started, is_quiet, watermark, slot = True, False, 0, "pgdoch_0_gone"

    def report_soon(self) -> None:
        raise AssertionError


def test_a_keeper_whose_hub_lost_its_slot_lets_others_keep_history(db: SharedDatabase) -> None:
    with db.store("streamer", auto_create=False) as store:
        source = store._streams.hub.source
        with contextlib.closing(KeeperSession(source)) as one, contextlib.closing(KeeperSession(source)) as other:
            assert [each.keeps_history(None) for each in (one, other)] == [True, False]
            BookmarkKeeper(source, HubWithoutServer()).keep(one)
            assert [each.keeps_history(None) for each in (one, other)] == [False, True]


def test_a_former_owner_that_was_slow_leaves_the_slot_of_the_next(
    db: SharedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first owner loses its session while it looks for the position of a new consumer's slot."""
    real, looking, goes_on = take_position, threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def slow(*args: Any, **options: Any) -> SlotStart:
        if not looking.is_set():
            looking.set()
            assert goes_on.wait(PATIENCE_S)
        return real(*args, **options)

    def open_it() -> None:
        try:
            with Store(db.dsn("streamer"), auto_create=False) as slow:
                slow["orders"].watch(consumer=NAME).close()
        except ServerError as exc:
            errors.append(exc)

    monkeypatch.setattr(slots, "take_position", slow)
    former = threading.Thread(target=open_it)
    former.start()
    assert looking.wait(PATIENCE_S)
    with db.connect("superuser") as superuser, db.store("streamer", auto_create=False) as store:
        superuser.execute("SELECT pg_terminate_backend(pid, 5000) FROM pgdoc.owners WHERE name = %s", [NAME])
        reader = "SELECT active_pid FROM pg_replication_slots WHERE slot_name LIKE 'pgdoc\\_%%' AND slot_name LIKE %s"
        with store["orders"].watch(consumer=NAME) as stream:
            before = superuser.execute(reader, [f"%{NAME}"]).fetchone()
            goes_on.set()
            former.join(PATIENCE_S)
            assert [type(exc).__name__ for exc in errors] == ["ServerUnreachable"]
            assert superuser.execute(reader, [f"%{NAME}"]).fetchone() == before
            assert stream.stats().mode in {"live", "catching_up"}
        store.drop_consumer(NAME)


def test_doctor_s_advice_about_a_table_is_one_call_whatever_its_name(
    db: SharedDatabase, registrar: psycopg.Connection
) -> None:
    name = "x'); DROP TABLE docs.orders; --"
    registrar.execute(sql.SQL("CREATE TABLE docs.{} (LIKE docs.a INCLUDING ALL)").format(sql.Identifier(name)))
    (found,) = [finding for finding in doctor.examine_server(db.dsn("owner")) if name in finding.text]
    assert found.fix == ("SELECT pgdoc.register('docs.\"x''); DROP TABLE docs.orders; --\"')",)
