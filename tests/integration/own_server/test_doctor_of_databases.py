"""`pgdoc doctor` reports each fault that a database can have, and its commands mend it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store, UnreadableChange
from pgdoc.cli.app import run_cli
from pgdoc.cli.doctor import consumers, documents, examine_server
from tests.doctoring import finding, findings, left, mend
from tests.integration.own_server.consumers import NAME, drop_bookmarks, drop_slot, slot, status
from tests.integration.own_server.words import PATIENCE_S, wait_until
from tests.poison import insert_poison, make_poisonous

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

ODD = 'x\'); DROP TABLE docs; -- ""a""\\\n'


@pytest.fixture
def quoted() -> str:
    return psycopg.sql.Identifier(ODD).as_string(None)


def mends(owner: psycopg.Connection, dsn: str, finding_id: str, *, only: str, about: str | None = None) -> None:
    """Check that the commands of a finding mend it."""
    mend(owner, dsn, finding(dsn, finding_id, only=[only], about=about))
    assert not left(dsn, finding_id, only=[only], about=about)


def test_a_catalog_of_another_version_owner_or_database_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    owner.execute("UPDATE pgdoc.identity SET database_oid = 1")
    mends(owner, dsn, "catalog-unbound", only="catalog")
    owner.execute("UPDATE pgdoc.alembic_version SET version_num = '9999'")
    assert finding(dsn, "catalog-revision", only=["catalog"]).value == "9999"
    owner.execute("UPDATE pgdoc.alembic_version SET version_num = '0013'; CREATE ROLE clerk")
    owner.execute("ALTER SCHEMA pgdoc OWNER TO clerk")
    assert finding(dsn, "catalog-owner", only=["catalog"]).verdict == "wrong"
    owner.execute("ALTER SCHEMA pgdoc OWNER TO postgres; DROP ROLE clerk")
    assert not left(dsn, "catalog-owner", only=["catalog"])


def test_a_database_that_was_left_prepared_for_an_upgrade_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    assert run_cli(["upgrade", "prepare", "--only", "--dsn", dsn]) == 0
    owner.execute("UPDATE pgdoc.identity SET system_id = 7")
    assert finding(dsn, "catalog-unbound", only=["catalog"]).fix == ("pgdoc upgrade finish",)
    owner.execute("UPDATE pgdoc.identity SET system_id = system_identifier FROM pg_control_system()")
    mends(owner, dsn, "catalog-frozen", only="catalog")


def test_event_triggers_that_do_not_fire_are_reported(dsn: str, owner: psycopg.Connection) -> None:
    owner.execute("ALTER EVENT TRIGGER pgdoc_alters DISABLE")
    mends(owner, dsn, "event-trigger-disabled", only="catalog")
    owner.execute("ALTER EVENT TRIGGER pgdoc_alters ENABLE REPLICA; DROP EVENT TRIGGER pgdoc_drops")
    assert finding(dsn, "event-trigger-disabled", only=["catalog"]).value == "R"
    mends(owner, dsn, "event-trigger-missing", only="catalog")  # `pgdoc init` enables the other one, too
    assert not left(dsn, "event-trigger-disabled", only=["catalog"])


def test_a_publication_that_others_have_changed_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection, quoted: str
) -> None:
    owner.execute(f"CREATE TABLE public.{quoted} (id int)".encode())
    owner.execute(f"ALTER PUBLICATION pgdoc ADD TABLE public.{quoted}".encode())
    mends(owner, dsn, "publication-foreign-table", only="catalog", about=f"public.{ODD}")
    for harm in (
        "ALTER PUBLICATION pgdoc DROP TABLE docs.orders",
        "ALTER PUBLICATION pgdoc DROP TABLE pgdoc.registry",
        "ALTER PUBLICATION pgdoc SET (publish = 'insert')",
        "DROP PUBLICATION pgdoc",
    ):
        owner.execute(harm.encode())
        mends(owner, dsn, "publication", only="catalog")
    owner.execute("CREATE ROLE clerk LOGIN PASSWORD 'x'; ALTER SCHEMA pgdoc OWNER TO clerk")
    try:
        as_clerk = make_conninfo(dsn, user="clerk", password="x")  # noqa: S106
        mend(owner, dsn, finding(as_clerk, "publication-owner", only=["catalog"]))
        assert not left(as_clerk, "publication-owner", only=["catalog"])
    finally:
        owner.execute("ALTER SCHEMA pgdoc OWNER TO postgres; ALTER PUBLICATION pgdoc OWNER TO postgres")
        owner.execute("DROP OWNED BY clerk; DROP ROLE clerk")


def test_tables_that_are_not_quite_collections_are_reported(
    dsn: str, store: Store, owner: psycopg.Connection, quoted: str
) -> None:
    assert finding(dsn, "schema-missing", only=["tables"], schema="typo").object == "typo"
    owner.execute("CREATE TABLE docs.ledger (n int)")
    assert "it needs the columns id text" in finding(dsn, "not-a-collection", only=["tables"]).text
    owner.execute("DROP TABLE docs.ledger")
    owner.execute(f"CREATE TABLE docs.{quoted} (LIKE docs.orders INCLUDING ALL)".encode())
    mends(owner, dsn, "not-a-collection", only="tables")
    owner.execute("DROP EVENT TRIGGER pgdoc_alters")  # which refuses the faults
    owner.execute(f"ALTER TABLE docs.{quoted} DISABLE TRIGGER ALL".encode())
    mends(owner, dsn, "collection-equipment", only="tables", about=f"docs.{ODD}")
    owner.execute("ALTER TABLE docs.orders REPLICA IDENTITY DEFAULT")
    mends(owner, dsn, "collection-equipment", only="tables", about="docs.orders")
    owner.execute(f"ALTER TABLE docs.{quoted} ALTER COLUMN created_at DROP DEFAULT".encode())
    mends(owner, dsn, "collection-form", only="tables")
    store["orders"].create_index("status")
    owner.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indrelid = 'docs.orders'::regclass AND NOT indisprimary"
    )
    for each in findings(dsn, "index-unfinished", only=["tables"]):
        mend(owner, dsn, each)
    assert not left(dsn, "index-unfinished", only=["tables"])


def test_tables_whose_changes_are_incomplete_are_reported(
    dsn: str, store: Store, owner: psycopg.Connection, quoted: str
) -> None:
    owner.execute(f"CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{quoted} (id int PRIMARY KEY, n int)".encode())
    owner.execute("SELECT pgdoc.add_table(%s::regclass)", [f"{quoted}.{quoted}"])
    about = f"{ODD}.{ODD}"
    owner.execute("DROP EVENT TRIGGER pgdoc_alters; DROP EVENT TRIGGER pgdoc_drops")
    owner.execute(f"ALTER TABLE {quoted}.{quoted} REPLICA IDENTITY DEFAULT".encode())
    mends(owner, dsn, "table-identity", only="watched", about=about)
    owner.execute(f"ALTER PUBLICATION pgdoc DROP TABLE {quoted}.{quoted}".encode())
    mends(owner, dsn, "table-unpublished", only="watched", about=about)
    owner.execute(f"ALTER TABLE {quoted}.{quoted} ADD COLUMN note text, ENABLE ROW LEVEL SECURITY".encode())
    assert finding(dsn, "table-policies", only=["watched"], about=about).verdict == "warn"
    mends(owner, dsn, "table-stale", only="watched", about=about)
    owner.execute(f"CREATE PUBLICATION other FOR TABLE {quoted}.{quoted} (id)".encode())
    mends(owner, dsn, "table-conflict", only="watched", about=about)
    owner.execute("DROP PUBLICATION other")
    owner.execute("SELECT pgdoc.add_table(%s::regclass)", [f"{quoted}.{quoted}"])
    owner.execute(f"ALTER TABLE {quoted}.{quoted} DROP CONSTRAINT {_key(owner)}".encode())
    mends(owner, dsn, "table-fault", only="watched", about=about)
    owner.execute(
        f"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        f"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (2);"
        f"CREATE TABLE {quoted} PARTITION OF p FOR VALUES FROM (2) TO (3);"
        f"SELECT pgdoc.add_table('p1')".encode()
    )
    mends(owner, dsn, "partition-unwatched", only="watched")


def _key(owner: psycopg.Connection) -> str:
    query = (
        "SELECT quote_ident(conname) FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace WHERE nspname = %s"
    )
    ((name,),) = owner.execute(query + " AND contype = 'p'", [ODD]).fetchall()
    return str(name)


def test_an_index_whose_collation_has_changed_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection, quoted: str
) -> None:
    assert [each.id for each in examine_server(dsn, only=["collations"])] == ["catalog", "collations"]
    row = owner.execute(
        "SELECT oid, quote_ident(collname) FROM pg_collation "
        "WHERE collversion IS NOT NULL AND collencoding IN (-1, 6) ORDER BY oid LIMIT 1"
    ).fetchone()
    assert row is not None, "the server has no collation with a version"
    oid, name = row
    index = f"CREATE INDEX {quoted} ON docs.orders ((data ->> 'name') COLLATE pg_catalog.{name})"
    owner.execute(index.encode())
    owner.execute("UPDATE pg_collation SET collversion = '0' WHERE oid = %s", [oid])
    mends(owner, dsn, "index-collation", only="collations")


def test_a_database_without_a_catalog_or_with_a_new_collation_is_reported(dsn: str, owner: psycopg.Connection) -> None:
    has_builtin = owner.info.server_version >= 170000
    provider = "builtin BUILTIN_LOCALE 'C.UTF-8'" if has_builtin else "icu ICU_LOCALE 'und'"
    owner.execute(f"CREATE DATABASE elsewhere TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER {provider}".encode())
    owner.execute("UPDATE pg_database SET datcollversion = '0' WHERE datname = 'elsewhere'")
    other = make_conninfo(dsn, dbname="elsewhere")
    try:
        mends(owner, other, "catalog-missing", only="catalog")
        with psycopg.connect(other, autocommit=True) as connection:
            mends(connection, other, "database-collation", only="collations")
    finally:
        owner.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'elsewhere'"
        )
        owner.execute("DROP DATABASE elsewhere WITH (FORCE)")


def test_documents_that_are_too_large_are_reported(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = store["orders"]
    orders.set_limits(max_size=None)
    monkeypatch.setattr(documents, "DEFAULT_MAX_SIZE", 100_000)
    key = "o'1"
    orders.insert(key, {"text": "x" * 200_000})
    found = finding(dsn, "document-large", only=["sizes"], about=key)
    assert found.text.startswith('document "o\'1" of collection "docs.orders" has 195.3 KiB of JSON text')
    mends(owner, dsn, "document-large", only="sizes")
    mends(owner, dsn, "documents-unlimited", only="sizes")


def test_a_document_that_can_not_be_printed_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store["orders"].set_limits(max_size=None)
    # PostgreSQL can't print more than 1 GB, which takes seconds to make.
    ((text,),) = owner.execute("SELECT pg_get_functiondef('pgdoc.readable_text'::regproc)").fetchall()
    assert "100000 THEN" in text
    owner.execute(text.replace("1000000000", "99999").replace("100000 THEN", "10 THEN").encode())
    monkeypatch.setattr(documents, "DEFAULT_MAX_SIZE", 100_000)
    owner.execute("INSERT INTO docs.orders (id, data) VALUES ('dense', '{\"n\": [1e131071, 0]}')")
    mends(owner, dsn, "document-unprintable", only="sizes")


def test_documents_that_nobody_deletes_are_reported(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    store["jobs"].create_index("at", expire_after=timedelta(hours=1))
    store.close()  # it would delete what has expired, at a random moment of its first minute
    owner.execute(
        "INSERT INTO docs.jobs VALUES ('a', jsonb_build_object('at', %s::text)), ('b', '{\"at\": \"soon\"}')",
        [long_ago],
    )
    assert finding(dsn, "documents-without-time", only=["expiry"]).value == 1
    mends(owner, dsn, "documents-expired", only="expiry")
    owner.execute(
        "CREATE ROLE clerk; GRANT CREATE, USAGE ON SCHEMA docs TO clerk; ALTER TABLE docs.jobs OWNER TO clerk"
    )
    owner.execute(
        "CREATE FUNCTION docs.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER keep BEFORE DELETE ON docs.jobs FOR EACH ROW EXECUTE FUNCTION docs.keep()"
    )
    assert finding(dsn, "expiry-obstacle", only=["expiry"]).verdict == "warn"
    owner.execute("DROP OWNED BY clerk CASCADE; DROP ROLE clerk")


def test_consumers_that_nobody_opens_are_reported(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    with store.watch(consumer=NAME):
        verdicts = {each.id: each.verdict for each in examine_server(dsn, only=["consumers"])}
        assert verdicts == {"catalog": "ok", "consumer": "ok"}
    assert finding(dsn, "consumer-closed", only=["consumers"]).fix == (f"pgdoc consumers drop {NAME}",)
    owner.execute("UPDATE pgdoc.owners SET renewed_at = now() + interval '1 hour'")
    assert finding(dsn, "clock-went-back", only=["consumers"]).object == NAME
    forget(owner, "10 days")
    mends(owner, dsn, "consumer-orphaned", only="consumers")
    assert store.consumers() == []


def test_dead_letters_that_nobody_tries_again_are_reported(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    put = (
        "INSERT INTO pgdoc.dead_letters "
        "(consumer, handler, state, event_type, collection, token, changed_at, stored_at) "
        "VALUES (%s, 'of it''s', %s, 'truncate', 'orders', '0/1.1.1', now(), now() - %s::interval)"
    )
    only = ["workers"]
    with store.watch(consumer=NAME):
        assert {each.verdict for each in examine_server(dsn, only=only)} == {"ok"}
        owner.execute(put, [NAME, "dead", "1 hour"])
        assert finding(dsn, "dead-letters-orphaned", only=only).value == 1
        owner.execute(
            "INSERT INTO pgdoc.handlers (consumer, handler, epoch, holder) "
            "SELECT name, 'of it''s', epoch, holder FROM pgdoc.consumers"
        )
        assert {each.verdict for each in examine_server(dsn, only=only)} == {"ok"}
        owner.execute(put, [NAME, "dead", "25 hours"])
        assert finding(dsn, "dead-letters-left", only=only).value == 2
        owner.execute(put, [NAME, "due", "0"])
    assert finding(dsn, "dead-letters-wait", only=only).value == 1
    assert store.drop_consumer(NAME)
    mends(owner, dsn, "dead-letters-orphaned", only="workers")


def test_dead_letters_of_a_group_are_reported_if_its_workers_run_without_the_handler(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    assert store.consumers() == []
    only = ["workers"]
    begin = (
        "INSERT INTO pgdoc.handlers (consumer, handler, epoch, holder, log) "
        "VALUES ('billing#3', %s, %s, gen_random_uuid(), 'ORDERS')"
    )
    owner.execute(begin, ["bill", 5])
    owner.execute(
        "INSERT INTO pgdoc.dead_letters (consumer, handler, state, event_type, collection, token, changed_at) "
        "VALUES ('billing#3', 'bill', 'due', 'truncate', 'orders', '0/1.1.1', now())"
    )
    assert {each.verdict for each in examine_server(dsn, only=only)} == {"ok"}
    owner.execute(begin, ["bill_again", 6])  # the handler has another name since
    assert finding(dsn, "dead-letters-orphaned", only=only).value == 1
    mends(owner, dsn, "dead-letters-orphaned", only="workers")


def forget(owner: psycopg.Connection, span: str) -> None:
    """Make the consumers look as if nobody had had them open for so long."""
    owner.execute("UPDATE pgdoc.owners SET renewed_at = now() - %s::interval", [span])
    owner.execute("UPDATE pgdoc.consumer_progress SET seen_at = now() - %s::interval", [span])
    owner.execute("UPDATE pgdoc.consumers SET created_at = now() - %s::interval", [span])


def test_an_owner_that_is_silent_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 60.0)
    monkeypatch.setattr(consumers, "_SILENT", timedelta())
    with store.watch(consumer=NAME) as stream:
        pid = status(store).owner_pid
        mend(owner, dsn, finding(dsn, "consumer-silent", only=["consumers"]))
        wait_until(lambda: status(store).owner_pid not in {pid, None})
        stream.close()


def test_consumers_and_slots_that_are_not_a_pair_are_reported(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    store.watch(consumer=NAME).close()
    owner.execute("UPDATE pgdoc.consumers SET place = '{}'")
    mends(owner, dsn, "consumer-unfinished", only="consumers")
    store.watch(consumer=NAME).close()
    drop_slot(owner)
    assert finding(dsn, "consumer-lost", only=["consumers"]).value == "lost its slot"
    mends(owner, dsn, "consumer-lost", only="consumers")
    owner.execute("DELETE FROM pgdoc.consumers")
    mends(owner, dsn, "slot-without-consumer", only="consumers", about=slot(owner))


def test_a_consumer_that_can_not_read_on_is_reported(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    make_poisonous(owner, "files")
    with store.watch("files", consumer=NAME) as stream:
        insert_poison(owner, "files")
        with pytest.raises(UnreadableChange) as caught:
            stream.next(timeout=PATIENCE_S)
    found = finding(dsn, "consumer-unreadable", only=["consumers"])
    assert (found.object, found.value) == (NAME, caught.value.commit_lsn)
    mend(owner, dsn, found)
    assert not left(dsn, "consumer-unreadable", only=["consumers"])


def test_history_that_nobody_keeps_or_needs_is_reported(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_bookmarks(owner)
    owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '100MB'")
    owner.execute("SELECT pg_reload_conf()")
    try:
        store.set_history(size=200 << 20)
        wait_until(lambda: bool(left(dsn, "history-limit", only=["history"])))
        mends(owner, dsn, "history", only="history")
        mend(owner, dsn, finding(dsn, "history-limit", only=["history"]))
        wait_until(lambda: not left(dsn, "history-limit", only=["history"]))
        owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = -1")
        owner.execute("SELECT pg_reload_conf()")
        owner.execute("UPDATE pgdoc.settings SET history_chosen = false, history_time = '1 second'")
        monkeypatch.setattr(consumers, "_ABANDONED", timedelta())
        wait_until(lambda: bool(left(dsn, "bookmarks-left", only=["history"])))
        mends(owner, dsn, "bookmarks-left", only="history")
    finally:
        owner.execute("ALTER SYSTEM RESET ALL")
        owner.execute("SELECT pg_reload_conf()")


def test_json_has_an_id_and_the_commands_of_each_finding(
    dsn: str, store: Store, cluster: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    store.watch(consumer=NAME).close()
    assert run_cli(["doctor", "--json", "--dsn", dsn]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(list(line) == ["id", "verdict", "subject", "text", "object", "value", "fix"] for line in lines)
    (closed,) = [line for line in lines if line["id"] == "consumer-closed"]
    assert (closed["object"], closed["fix"]) == (NAME, [f"pgdoc consumers drop {NAME}"])
    assert run_cli(["doctor", "--dsn", dsn]) == 0
    assert f"\n{' ' * 21}run pgdoc consumers drop {NAME}\n" in capsys.readouterr().out
