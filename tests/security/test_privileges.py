"""What a role gains by what it may create: nothing. What PostgreSQL allows every role: bounded, and named by doctor."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from pgdoc import CollectionNotFound, PgdocError
from pgdoc.cli import doctor
from pgdoc.cli.doctor import server, slots
from tests.security.calls import attempt_all
from tests.security.readers import PATIENCE_S
from tests.security.test_data_loss import SIX

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase

# Code of the creator that the session of another role would run, were it to touch the table.
_PAYLOAD = """
CREATE FUNCTION docs.payload() RETURNS text LANGUAGE plpgsql AS $f$
BEGIN
  IF current_user <> {creator} THEN
    EXECUTE 'CREATE TABLE docs.ran_as_' || current_user || ' ()';
  END IF;
  RETURN '1';
END $f$;
CREATE FUNCTION docs.fire() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN PERFORM docs.payload(); RETURN NEW; END $f$;
"""
_SIX_OF = "docs.payload() AS id, '{{}}'::jsonb AS data, 1::bigint AS version, 1::bigint AS replaced_version, now() AS x"
TRAPS: dict[str, tuple[str, ...]] = {
    "a view": (f"CREATE VIEW docs.trap AS SELECT {_SIX_OF}, now() AS updated_at",),
    "a default": (f"CREATE TABLE docs.trap ({SIX.replace('DEFAULT 1', 'DEFAULT length(docs.payload())', 1)})",),
    "a trigger": (
        f"CREATE TABLE docs.trap ({SIX})",
        "ALTER TABLE docs.trap REPLICA IDENTITY FULL",
        *(
            f"CREATE TRIGGER t{n} BEFORE {what} ON docs.trap FOR EACH STATEMENT EXECUTE FUNCTION docs.fire()"
            for n, what in enumerate(("INSERT", "UPDATE", "DELETE", "TRUNCATE"))
        ),
    ),
    "triggers of pgdoc's names": (
        f"CREATE TABLE docs.trap ({SIX})",
        "ALTER TABLE docs.trap REPLICA IDENTITY FULL",
        "CREATE TRIGGER pgdoc_before_update BEFORE UPDATE ON docs.trap FOR EACH ROW EXECUTE FUNCTION docs.fire()",
        "CREATE TRIGGER pgdoc_after_insert AFTER INSERT ON docs.trap FOR EACH ROW EXECUTE FUNCTION docs.fire()",
        "INSERT INTO docs.trap (id, data) VALUES ('1', '{}')",
    ),
    "a check": (f"CREATE TABLE docs.trap ({SIX}, CHECK (docs.payload() = '1'))",),
    "a rule": (
        f"CREATE TABLE docs.trap ({SIX})",
        "CREATE RULE r AS ON DELETE TO docs.trap DO ALSO SELECT docs.payload()",
        "CREATE RULE s AS ON INSERT TO docs.trap DO ALSO SELECT docs.payload()",
    ),
    "an operator": (
        f"CREATE TABLE docs.trap ({SIX})",
        "CREATE FUNCTION docs.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT docs.payload() IS NOT NULL'",
        "CREATE OPERATOR docs.= (LEFTARG = text, RIGHTARG = text, FUNCTION = docs.eq)",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_no_call_runs_code_of_a_role_that_created_a_table_first(db: SharedDatabase, trap: str) -> None:
    creator, superuser = db.connect("creator"), db.connect("superuser")
    creator.execute(sql.SQL(_PAYLOAD).format(creator=db.roles["creator"]))
    for statement in TRAPS[trap]:
        creator.execute(statement.replace("{{}}", "{}").encode())
    creator.execute("GRANT ALL ON docs.trap TO PUBLIC")
    for schema_path in ("", " -c search_path=docs,public"):
        dsn = psycopg.conninfo.make_conninfo(db.dsn("owner"), options=schema_path.strip())
        accepted = attempt_all(dsn, "trap", schema="docs", is_async=False)
        assert not accepted, "\n".join(accepted)
    store = db.store("owner")
    store["orders"].insert("o-1", {"a": 1})
    with db.store("streamer", auto_create=False).watch(snapshot=True) as stream:
        assert stream.next(timeout=PATIENCE_S) is not None
    store.consumers()
    store.history()
    list(doctor.examine_server(db.dsn("owner")))
    store.migrate()
    ran = superuser.execute("SELECT relname FROM pg_class WHERE relname ~ '^ran_as_'").fetchall()
    assert ran == []


def test_a_definer_function_of_another_role_registers_nothing_for_its_caller(db: SharedDatabase) -> None:
    """The owner calls a function of the creator, which tries to register and unregister the owner's tables."""
    owner, creator = db.connect("owner"), db.connect("creator")
    owner.execute(f"CREATE TABLE docs.mine ({SIX})".encode())
    for call in ("register('docs.mine')", "unregister('docs.orders')", "equip_collection('docs.mine')"):
        creator.execute(
            f"CREATE OR REPLACE FUNCTION docs.deputy() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $f$ "
            f"BEGIN PERFORM pgdoc.{call}; END $f$".encode()
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute("SELECT docs.deputy()")
    assert owner.execute("SELECT * FROM pgdoc.collections('docs')").fetchall() == [("orders",)]


def test_a_role_with_the_right_to_register_registers_its_own_tables_only(db: SharedDatabase) -> None:
    owner, creator = db.connect("owner"), db.connect("creator")
    grant = "GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO {}"
    owner.execute(sql.SQL(grant).format(db.identifier("creator")))
    if db.catalog == "owner":  # else the owner of the publication could not add the table
        db.connect("superuser").execute(
            sql.SQL("GRANT {} TO {}").format(db.identifier("creator"), db.identifier("owner"))
        )
    owner.execute(f"CREATE TABLE docs.other ({SIX})".encode())
    creator.execute(f"CREATE TABLE docs.mine ({SIX})".encode())
    for call in ("register('docs.other')", "enter_collection('docs.other')", "unregister('docs.orders')"):
        with pytest.raises(psycopg.Error):
            creator.execute(f"SELECT pgdoc.{call}".encode())
    creator.execute("SELECT pgdoc.register('docs.mine')")
    assert db.store().collections() == ["mine", "orders"]
    with db.store("streamer", auto_create=False)["mine"].watch() as stream:
        creator.execute("INSERT INTO docs.mine (id, data) VALUES ('1', '{}')")
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "1"


@pytest.mark.parametrize("role", ["writer", "reader", "creator", "stranger"])
def test_a_role_without_replication_neither_streams_nor_takes_consumers(db: SharedDatabase, role: str) -> None:
    with db.store("streamer", auto_create=False)["orders"].watch(consumer="c"):
        store = db.store(role, auto_create=False)
        with pytest.raises(PgdocError):
            store["orders"].watch()
        with pytest.raises(PgdocError):
            store["orders"].watch(consumer="c", wait=False)
        with pytest.raises(PgdocError):
            store.drop_consumer("c")
        connection = db.connect(role)
        for statement in (
            "UPDATE pgdoc.consumers SET epoch = epoch + 1",
            "DELETE FROM pgdoc.owners",
            "INSERT INTO pgdoc.registry SELECT * FROM pgdoc.registry",
            "UPDATE pgdoc.registry SET until = since",
            "UPDATE pgdoc.settings SET history_size = 0",
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
            "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots",
            "ALTER PUBLICATION pgdoc DROP TABLE docs.orders",
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse)):
                connection.execute(statement.encode())
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
            )
            pytest.fail("a role without privileges ended a walsender")
    db.store("streamer", auto_create=False).drop_consumer("c")


def _findings(db: SharedDatabase) -> list[str]:
    return [str(finding.text) for finding in doctor.examine_server(db.dsn("owner")) if finding.verdict != "ok"]


def test_the_doctor_names_a_session_whose_transaction_holds_back_slots(
    db: SharedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_LONG_TRANSACTION_S", 0.0)
    stranger = db.connect("stranger", autocommit=False)
    stranger.execute("SELECT pg_current_xact_id()")
    pid = stranger.info.backend_pid
    assert any("write transaction" in text and re.search(rf"\b{pid}\b", text) for text in _findings(db))


def test_the_doctor_says_when_a_role_has_taken_the_connections(
    db: SharedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("connections free" in text for text in _findings(db))
    monkeypatch.setattr(server, "_FEW_FREE", 10_000)
    assert any("connections free" in text and "CONNECTION LIMIT" in text for text in _findings(db))


def test_the_doctor_names_a_collection_that_has_lost_its_form(db: SharedDatabase) -> None:
    owner = db.connect("owner")
    owner.execute("ALTER TABLE docs.orders DISABLE TRIGGER pgdoc_before_update")
    assert any('"docs.orders" has lost its triggers' in text for text in _findings(db))


def test_the_wal_that_a_slot_keeps_for_a_writer_of_anything_is_bounded(db: SharedDatabase) -> None:
    """Any role can write WAL (messages). `max_slot_wal_keep_size` bounds what slots keep of it; doctor asks for it."""
    setting = db.connect("superuser").execute("SHOW max_slot_wal_keep_size").fetchone()
    found = [text for text in _findings(db) if "max_slot_wal_keep_size is unlimited" in text]
    assert bool(found) == (setting == ("-1",))


def test_a_table_that_a_creator_made_first_is_refused_and_not_written(db: SharedDatabase) -> None:
    creator = db.connect("creator")
    creator.execute(f"CREATE TABLE docs.new ({SIX})".encode())
    creator.execute("GRANT ALL ON docs.new TO PUBLIC")
    with pytest.raises(CollectionNotFound):
        db.store()["new"].insert("secret", {})
    assert creator.execute("SELECT count(*) FROM docs.new").fetchone() == (0,)


@pytest.mark.parametrize("identity", ["DEFAULT", "NOTHING", "FULL"])
def test_a_table_of_a_creator_keeps_no_role_from_streaming_other_collections(
    db: SharedDatabase, plugin: str, identity: str
) -> None:
    creator: Any = db.connect("creator")
    creator.execute(f"CREATE TABLE docs.mine ({SIX})".encode())
    creator.execute(f"ALTER TABLE docs.mine REPLICA IDENTITY {identity}".encode())
    store = db.store("streamer", plugin=plugin, auto_create=False)
    with store["orders"].watch() as named, store.watch() as whole, store.watch(consumer="c") as consumer:
        creator.execute("INSERT INTO docs.mine (id, data) VALUES ('1', '{}')")
        creator.execute("ALTER TABLE docs.mine RENAME TO yours")
        creator.execute("DROP TABLE docs.yours")
        db.store("writer")["orders"].insert("o-1", {})
        for stream in (named, whole, consumer):
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert (event.event_type.value, event.document_id) == ("insert", "o-1")
    store.drop_consumer("c")
