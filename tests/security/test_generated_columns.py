"""Generated columns of collections: STORED ones work in streams, VIRTUAL ones are refused when they are added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.security.readers import END, Readers
from tests.security.test_data_loss import SIX

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase

STORED = "ALTER TABLE docs.orders ADD COLUMN t text GENERATED ALWAYS AS (data ->> 't') STORED"
VIRTUAL = "ALTER TABLE docs.orders ADD COLUMN t text GENERATED ALWAYS AS (data ->> 't') VIRTUAL"


@pytest.fixture
def has_virtual_columns(db: SharedDatabase) -> None:
    if db.connect().info.server_version < 180000:
        pytest.skip("VIRTUAL generated columns need PostgreSQL 18")


def test_a_collection_with_a_stored_column_is_written_and_streamed(db: SharedDatabase, plugin: str) -> None:
    orders = db.store()["orders"]
    orders.insert("o-1", {"t": "one"})
    readers = Readers(db.store("streamer", plugin=plugin, auto_create=False))
    db.connect().execute(STORED)
    orders.update("o-1", {"$set": {"t": "two"}})
    orders.replace("o-1", {"t": "three"})
    orders.insert("o-2", {"t": "x"})
    orders.delete("o-1")
    orders.insert(END, {})
    for kind, events in readers.read().items():
        images = [(event.full_document_before_change, event.full_document) for event in events]
        data = [tuple(image and image.data for image in pair) for pair in images]
        assert data == [
            ({"t": "one"}, {"t": "two"}),
            ({"t": "two"}, {"t": "three"}),
            (None, {"t": "x"}),
            ({"t": "three"}, None),
        ], kind
    readers.close()
    assert db.connect().execute("SELECT t FROM docs.orders ORDER BY id").fetchall() == [(None,), ("x",)]


def test_a_foreign_key_can_refer_to_a_stored_column(db: SharedDatabase) -> None:
    owner, orders = db.connect(), db.store()["orders"]
    owner.execute(STORED)
    owner.execute("ALTER TABLE docs.orders ADD UNIQUE (t)")
    owner.execute("CREATE TABLE docs.items (t text REFERENCES docs.orders (t))")
    orders.insert("o-1", {"t": "one"})
    owner.execute("INSERT INTO docs.items VALUES ('one')")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        owner.execute("DELETE FROM docs.orders")
    orders.update("o-1", {"$set": {"other": 1}})


def test_a_table_with_a_stored_column_is_registered(db: SharedDatabase, plugin: str) -> None:
    owner, store = db.connect(), db.store()
    owner.execute(f"CREATE TABLE docs.users ({SIX}, t text GENERATED ALWAYS AS (data ->> 't') STORED)".encode())
    owner.execute("SELECT pgdoc.register('docs.users')")
    with db.store("streamer", plugin=plugin, auto_create=False)["users"].watch() as stream:
        store["users"].insert("u-1", {"t": "a"})
        store["users"].update("u-1", {"$set": {"t": "b"}})
        events = [stream.next(timeout=30) for _ in range(2)]
        assert [event and event.event_type.value for event in events] == ["insert", "update"]


@pytest.mark.usefixtures("has_virtual_columns")
@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
def test_a_virtual_column_is_refused_when_it_is_added(db: SharedDatabase) -> None:
    store, owner = db.store(), db.connect()
    with pytest.raises(psycopg.Error, match="STORED") as raised:
        owner.execute(VIRTUAL)
    assert "docs.orders" in str(raised.value)
    store["orders"].insert("o-1", {})
    store["orders"].update("o-1", {"$set": {"a": 1}})
    store["orders"].delete("o-1")


@pytest.mark.usefixtures("has_virtual_columns")
@pytest.mark.parametrize("catalog", ["owner"], indirect=True)
def test_a_virtual_column_that_no_event_trigger_could_refuse_is_reported(db: SharedDatabase) -> None:
    """PostgreSQL then refuses every UPDATE and DELETE: the doctor says why, and what to do."""
    from pgdoc.cli.doctor import examine_server  # noqa: PLC0415 (the command line needs more packages)

    db.connect().execute(VIRTUAL)
    found = [finding for finding in examine_server(db.dsn()) if finding.verdict == "wrong"]
    assert any("orders" in finding.text and "STORED" in finding.text for finding in found), found


@pytest.mark.usefixtures("has_virtual_columns")
def test_init_completes_the_publication_after_an_upgrade_to_postgresql_18(db: SharedDatabase) -> None:
    owner, store = db.connect(), db.store()
    owner.execute("ALTER PUBLICATION pgdoc SET (publish_generated_columns = none)")
    owner.execute("UPDATE pgdoc.identity SET system_id = 1")
    store.migrate()
    assert db.store("streamer", plugin="pgoutput", auto_create=False).status().problem is None


@pytest.mark.usefixtures("has_virtual_columns")
def test_a_table_with_a_virtual_column_is_not_registered(db: SharedDatabase) -> None:
    owner = db.connect()
    owner.execute(f"CREATE TABLE docs.users ({SIX}, t text GENERATED ALWAYS AS (data ->> 't') VIRTUAL)".encode())
    with pytest.raises(psycopg.Error, match="STORED"):
        owner.execute("SELECT pgdoc.register('docs.users')")
    owner.execute("INSERT INTO docs.users (id, data) VALUES ('1', '{}')")
    owner.execute("UPDATE docs.users SET data = '{\"a\": 1}'")
