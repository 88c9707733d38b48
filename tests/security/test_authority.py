"""A role that may only connect can't forge, end, seize, skip or starve a stream, nor stop anything else of pgdoc."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc.database.migrate import migrate
from tests.security import attacks
from tests.security.readers import END, PATIENCE_S, Readers, brief, read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import SharedDatabase

ROOT = Path(__file__).parents[2]
LOW = ("stranger", "creator")
EXPECTED = [("insert", "orders", "o-2"), ("update", "orders", "o-1"), ("delete", "orders", "o-2")]
IMPATIENT = {"options": "-c statement_timeout=15s"}  # a call that hangs fails instead


@pytest.fixture
def readers(db: SharedDatabase, plugin: str) -> Iterator[Readers]:
    db.store()["orders"].insert("o-1", {"a": 1})
    opened = Readers(db.store("streamer", plugin=plugin, auto_create=False))
    yield opened
    opened.close()


def _impatient(db: SharedDatabase, role: str = "owner", **options: Any) -> pgdoc.Store:
    return db._open.enter_context(pgdoc.Store(psycopg.conninfo.make_conninfo(db.dsn(role), **IMPATIENT), **options))


def _change_orders(store: pgdoc.Store) -> None:
    store["orders"].insert("o-2", {})
    store["orders"].update("o-1", {"$inc": {"a": 1}})
    store["orders"].delete("o-2")


@pytest.mark.parametrize("role", LOW)
def test_forged_messages_end_nobody_and_are_delivered_to_nobody(
    db: SharedDatabase, readers: Readers, role: str
) -> None:
    attacks.forge_messages(db.connect(role))
    with db.connect(role, autocommit=False) as inside:
        attacks.forge_messages(inside)
    _change_orders(db.store("writer"))
    attacks.forge_messages(db.connect(role))
    db.store()["orders"].insert(END, {})
    for kind, events in readers.read().items():
        assert [brief(event) for event in events] == EXPECTED, kind
        assert [event.metadata for event in events] == [{}] * len(EXPECTED), kind


@pytest.mark.parametrize("role", ["stranger"])
def test_a_forged_message_of_a_writer_concerns_its_own_transaction_only(
    db: SharedDatabase, readers: Readers, role: str
) -> None:
    """Metadata is the writer's claim; what a collection is, is not."""
    writer = db.connect("writer", autocommit=False)
    writer.execute("INSERT INTO docs.orders (id, data) VALUES ('o-2', '{}')")
    for message in attacks.COLLECTION_MESSAGES:
        writer.execute("SELECT pg_logical_emit_message(true, 'pgdoc', %s)", [message])
    writer.execute("UPDATE docs.orders SET data = '{\"a\": 2}' WHERE id = 'o-1'")
    writer.execute("DELETE FROM docs.orders WHERE id = 'o-2'")
    writer.commit()
    db.store()["orders"].insert(END, {})
    for kind, events in readers.read().items():
        assert [brief(event) for event in events] == EXPECTED, kind


def test_forged_messages_do_not_disturb_a_snapshot(db: SharedDatabase, plugin: str) -> None:
    db.store()["orders"].insert_many((f"o-{n:05d}", {"n": n}) for n in range(3_000))
    stranger = db.connect("stranger")
    seen: dict[str, int] = {}
    with db.store("streamer", plugin=plugin, auto_create=False)["orders"].watch(snapshot=True) as stream:
        for n in range(3_000):
            if n % 500 == 0:
                attacks.forge_messages(stranger)
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            seen[str(event.document_id)] = seen.get(str(event.document_id), 0) + 1
        assert len(seen) == 3_000
        assert set(seen.values()) == {1}
        attacks.forge_messages(stranger)
        db.store()["orders"].insert(END, {})
        assert read_to_end(stream) == []


@pytest.mark.parametrize("role", LOW)
def test_everything_at_once_stops_no_stream_and_no_consumer(db: SharedDatabase, readers: Readers, role: str) -> None:
    with attacks.everything(db, role):
        store = _impatient(db)
        _change_orders(store)
        store["orders"].insert(END, {})
        for kind, events in readers.read().items():
            assert [brief(event) for event in events] == EXPECTED, kind
        store["orders"].delete(END)
        readers.reopen()
        store["orders"].insert(END, {})
        for kind, events in readers.read().items():
            assert [brief(event) for event in events] == [("delete", "orders", END)], kind


@pytest.mark.parametrize("role", ["creator"])  # has the stranger's rights, too
def test_everything_at_once_stops_no_call(db: SharedDatabase, plugin: str, role: str) -> None:
    """Collections, indexes, history, consumers and migrations, of which each once took a lock or sent a message."""
    with db.store("streamer", plugin=plugin, auto_create=False)["orders"].watch():
        pass  # history begins: the first slot of a database waits for open transactions
    with attacks.everything(db, role, has_snapshot=False):
        store = _impatient(db)
        store["new"].insert("n-1", {"a": 1})
        store["new"].create_index("a")
        store["new"].drop_index("a")
        store.create_collection("newer")
        store.rename_collection("newer", "newest")
        store.drop_collection("newest")
        store.set_history(size=1 << 30)
        assert store.history().bookmarks >= 0
        streaming = _impatient(db, "streamer", plugin=plugin, auto_create=False)
        with streaming["new"].watch(consumer="new", wait=False) as stream:
            store["new"].insert("n-2", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            with streaming.transaction() as tx:
                stream.checkpoint(event, tx)
            assert [consumer.owner_pid is not None for consumer in streaming.consumers()] == [True]
        streaming.drop_consumer("new")
        migrate(psycopg.conninfo.make_conninfo(db.dsn(), **IMPATIENT))
        assert store.collections() == ["new", "orders"]


_OWNER = """
import sys
import pgdoc
with pgdoc.Store(sys.argv[1], auto_create=False) as store, store["orders"].watch(consumer="new") as stream:
    print("open", flush=True)
    for event in stream:
        print(event.document_id, flush=True)
"""


@pytest.mark.parametrize("role", ["creator"])  # has the stranger's rights, too
def test_a_consumer_whose_process_was_killed_is_taken_over(db: SharedDatabase, plugin: str, role: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, db.dsn("streamer")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with process, contextlib.ExitStack() as attacking:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "open\n"
            attacking.enter_context(attacks.everything(db, role))
        finally:
            process.send_signal(signal.SIGKILL)
        db.store()["orders"].insert("o-1", {})
        store = db.store("streamer", plugin=plugin, auto_create=False)
        with store["orders"].watch(consumer="new") as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-1"
        store.drop_consumer("new")


@pytest.mark.parametrize("role", LOW)
def test_no_function_of_the_catalog_changes_anything_for_a_low_role(db: SharedDatabase, role: str) -> None:
    what = """
      SELECT array(SELECT g::text FROM pgdoc.registry g ORDER BY 1),
        array(SELECT p::text FROM pgdoc.published p ORDER BY 1),
        array(SELECT prrelid::regclass::text FROM pg_publication_rel ORDER BY 1),
        array(SELECT s::text FROM pgdoc.settings s), array(SELECT c::text FROM pgdoc.consumers c ORDER BY 1),
        array(SELECT tgname::text FROM pg_trigger ORDER BY 1), array(SELECT o::text FROM docs.orders o)
    """
    db.store()["orders"].insert("o-1", {})
    superuser = db.connect("superuser")
    before = superuser.execute(what).fetchall()
    called: list[str] = []
    attacks.call_every_function(db.connect(role), called)
    assert superuser.execute(what).fetchall() == before
    assert len(called) > 5


@pytest.mark.parametrize("role", LOW)
def test_functions_called_in_open_transactions_block_nobody(db: SharedDatabase, role: str) -> None:
    """Also just after DDL that no event trigger has followed: what the role's call writes stays locked."""
    owner, store = db.connect("owner", **IMPATIENT), _impatient(db)
    store.create_collection("users")
    for statement in ("DROP TABLE docs.users", "ALTER TABLE docs.orders RENAME TO renamed"):
        owner.execute(statement.encode())
        attacker = db.connect(role, autocommit=False)
        for name, kind, types in attacker.execute(attacks._FUNCTIONS).fetchall():
            if kind == "f" and not types:
                with contextlib.suppress(psycopg.Error), attacker.transaction():
                    attacker.execute(f"SELECT {name}()".encode())
    store["users"].insert("u-1", {})
    store.create_collection("orders")
    store["orders"].insert("o-1", {})
    assert {"orders", "users"} <= set(store.collections())


@pytest.mark.parametrize("role", LOW)
def test_a_low_role_locks_nothing_beyond_what_reading_locks(db: SharedDatabase, role: str) -> None:
    with db.connect(role, autocommit=False) as connection:
        granted = [attacks.lock_what_it_may(connection, schema) for schema in ("pgdoc", "docs")]
    assert {mode for tables in granted for modes in tables.values() for mode in modes} <= {"ACCESS SHARE"}


# What a stranger may read, and why: the catalog's revision for the first check of each call, and the registry, because
# every role that reads documents checks that a table is a collection. Neither holds a document or a document's id, and
# neither does the list of turns of those who delete what has expired.
READABLE = {"alembic_version", "settings", "expiry", "registry", "registry_commits", "identity", "published"}
READABLE |= {"former_clusters"}


def test_a_stranger_reads_nothing_of_the_catalog_that_tells_of_documents(db: SharedDatabase, plugin: str) -> None:
    store = db.store("streamer", plugin=plugin, auto_create=False)
    with store["orders"].watch(consumer="c", snapshot=True) as stream:
        db.store()["orders"].insert("secret-id", {"a": "secret"})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        with store.transaction() as tx:
            stream.checkpoint(event, tx)
    store.drop_consumer("c")
    stranger = db.connect("stranger")
    tables = stranger.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'pgdoc'::regnamespace AND relkind IN ('r', 'v') "
        "AND has_table_privilege(oid, 'SELECT')"
    ).fetchall()
    assert {table for (table,) in tables} <= READABLE


def test_no_advisory_lock_matters(db: SharedDatabase) -> None:
    """Any role can hold any advisory lock, so pgdoc takes none."""
    owner = db.connect("superuser")
    functions = owner.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pgdoc'::regnamespace AND prosrc ~* 'advisory'"
    ).fetchall()
    assert functions == []
    sources = [*(ROOT / "pgdoc").rglob("*.sql"), *(ROOT / "pgdoc").rglob("*.py"), ROOT / "migrations" / "env.py"]
    assert [
        str(path) for path in sources if "pg_advisory" in path.read_text() or "pg_try_adv" in path.read_text()
    ] == []
