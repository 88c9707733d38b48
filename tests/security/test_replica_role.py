"""Sessions with session_replication_role = replica, logical subscribers, and sessions with a replication origin."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgdoc import EventType, Store
from pgdoc.database.migrate import migrate
from pgdoc.errors import VersionConflict
from tests.fixtures.fix_server import _connect_admin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, ChangeStream
    from tests.fixtures.fix_server import Server

PATIENCE_S = 20.0


def take(stream: ChangeStream, count: int) -> list[ChangeEvent]:
    events = [stream.next(timeout=PATIENCE_S) for _ in range(count)]
    assert None not in events
    return [event for event in events if event is not None]


@pytest.fixture
def replica_session(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True, options="-c session_replication_role=replica") as connection:
        yield connection


def test_an_update_in_replica_role_counts_a_version_and_has_a_diff(
    dsn: str, plugin: str, replica_session: psycopg.Connection
) -> None:
    with Store(dsn, plugin=plugin) as store:
        inserted = store["orders"].insert("o-1", {"n": 1, "kept": True})
        with store["orders"].watch() as stream:
            replica_session.execute("UPDATE docs.orders SET data = data || '{\"n\": 2}'")
            (event,) = take(stream, 1)
        assert event.event_type is EventType.UPDATE
        assert event.update_description is not None
        assert event.update_description.updated_fields == {"n": 2}
        assert event.full_document is not None
        assert event.full_document.version == 2
        with pytest.raises(VersionConflict):
            store["orders"].update("o-1", {"$set": {"n": 3}}, if_version=inserted.version)


def test_a_collection_whose_trigger_was_disabled_has_updates_with_diffs(dsn: str, plugin: str) -> None:
    with Store(dsn, plugin=plugin) as store, psycopg.connect(dsn, autocommit=True) as owner:
        store["orders"].insert("o-1", {"n": 1})
        owner.execute("ALTER TABLE docs.orders DISABLE TRIGGER pgdoc_before_update")
        with store["orders"].watch() as stream:
            owner.execute("UPDATE docs.orders SET data = '{\"n\": 2}'")
            (event,) = take(stream, 1)
        owner.execute("ALTER TABLE docs.orders ENABLE ALWAYS TRIGGER pgdoc_before_update")
        assert event.event_type is EventType.UPDATE
        assert event.update_description is not None
        assert event.update_description.updated_fields == {"n": 2}


def test_existing_collections_count_versions_in_replica_role_after_the_migration(
    dsn: str, replica_session: psycopg.Connection
) -> None:
    from pgdoc.database.migrate import downgrade  # noqa: PLC0415 (imports alembic)

    with Store(dsn) as store:
        store["orders"].insert("o-1", {"n": 1})
    downgrade(dsn, "0006")
    migrate(dsn)
    replica_session.execute("UPDATE docs.orders SET data = '{}'")
    with Store(dsn) as store:
        document = store["orders"].get("o-1")
        assert document is not None
        assert document.version == 2


@contextlib.contextmanager
def subscribed(server: Server, publisher: str, subscriber: str) -> Iterator[psycopg.Connection]:
    """Let `docs.orders` of one database follow that of another of the same server."""
    name = f"{conninfo_to_dict(subscriber)['dbname']}_sub"
    with (
        psycopg.connect(publisher, autocommit=True) as source,
        psycopg.connect(subscriber, autocommit=True) as target,
        _connect_admin(server) as admin,
    ):
        source.execute("CREATE PUBLICATION of_the_test FOR TABLE docs.orders")
        # In one cluster, CREATE SUBSCRIPTION would wait for itself if it had to create the slot.
        source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
        create = (
            "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION of_the_test WITH (create_slot = false, slot_name = {})"
        )
        target.execute(sql.SQL(create).format(sql.Identifier(name), sql.Literal(publisher), sql.Literal(name)))
        try:
            yield target
        finally:
            target.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(sql.Identifier(name)))
            target.execute(sql.SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(sql.Identifier(name)))
            target.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
            admin.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s", [name]
            )
            admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
            )


def seen(event: ChangeEvent) -> tuple[Any, ...]:
    def plain(document: Any) -> Any:
        return document and (document.data, document.version, document.created_at, document.updated_at)

    return (
        event.event_type,
        event.document_id,
        plain(event.full_document),
        plain(event.full_document_before_change),
        event.update_description,
    )


def test_a_subscriber_has_the_publisher_s_versions_and_the_same_events(
    server: Server, dsn: str, bare_dsn: str, plugin: str
) -> None:
    migrate(bare_dsn)
    with Store(dsn, plugin=plugin) as here, Store(bare_dsn, plugin=plugin) as there:
        for store in (here, there):
            store.create_collection("orders")
        here["orders"].insert("early", {"n": 0})
        here["orders"].update("early", {"$inc": {"n": 1}})
        with there["orders"].watch() as applied, subscribed(server, dsn, bare_dsn), here["orders"].watch() as sent:
            (copied,) = take(applied, 1)
            assert (copied.event_type, copied.full_document and copied.full_document.version) == (EventType.INSERT, 2)
            here["orders"].insert("o-1", {"n": 1, "tags": ["a", "b"]})
            here["orders"].update("o-1", {"$inc": {"n": 1}})
            here["orders"].replace("o-1", {"n": 9})
            here["orders"].update("o-1", {"$set": {"m": 1}})
            here["orders"].update("early", {"$inc": {"n": 1}})
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("UPDATE docs.orders SET data = data || '{\"sql\": 1}' WHERE id = 'o-1'")
                connection.execute("SET session_replication_role = replica")
                connection.execute("UPDATE docs.orders SET data = data || '{\"sql\": 2}' WHERE id = 'o-1'")
            here["orders"].delete("early")
            published, received = take(sent, 8), take(applied, 8)
            assert [seen(event) for event in received] == [seen(event) for event in published]
            assert [event.event_type for event in received][:3] == [
                EventType.INSERT,
                EventType.UPDATE,
                EventType.REPLACE,
            ]
            assert [event.timestamp for event in received] == [event.timestamp for event in published]
        assert there["orders"].get("o-1") == here["orders"].get("o-1")
        # The subscriber's own sessions count on from there.
        there["orders"].update("o-1", {"$set": {"own": True}})
        document = there["orders"].get("o-1")
        assert document is not None
        assert document.version == 7


def test_a_session_with_an_origin_and_no_time_has_the_time_of_the_commit(dsn: str, plugin: str) -> None:
    """PostgreSQL reports none for its first transaction, and that of the first for all that follow."""
    with Store(dsn, plugin=plugin) as store, psycopg.connect(dsn, autocommit=True) as session:
        store["orders"].insert("o-1", {})
        origin = f"origin_{conninfo_to_dict(dsn)['dbname']}"
        session.execute("SELECT pg_replication_origin_create(%s)", [origin])
        try:
            with store["orders"].watch() as stream:
                session.execute("SELECT pg_replication_origin_session_setup(%s)", [origin])
                began = datetime.now(UTC)
                session.execute("DELETE FROM docs.orders")
                for number in range(3):
                    time.sleep(0.2)
                    session.execute("INSERT INTO docs.orders (id, data) VALUES (%s, '{}')", [str(number)])
                session.execute("UPDATE docs.orders SET data = '{\"n\": 1}' WHERE id = '2'")
                events = take(stream, 5)
                for event in events:
                    assert began - timedelta(seconds=1) <= event.timestamp <= datetime.now(UTC), event.event_type
                for event in events[1:]:
                    assert event.full_document is not None
                    assert event.timestamp >= event.full_document.updated_at
        finally:
            session.execute("SELECT pg_replication_origin_session_reset()")
            session.execute("SELECT pg_replication_origin_drop(%s)", [origin])


def test_a_transaction_with_a_time_of_its_origin_keeps_it(dsn: str, plugin: str) -> None:
    """As a logical subscriber's: it happened when the publisher committed it."""
    at = datetime.now(UTC) + timedelta(hours=1)
    with Store(dsn, plugin=plugin) as store, psycopg.connect(dsn, autocommit=True) as session:
        store.create_collection("orders")
        origin = f"origin_{conninfo_to_dict(dsn)['dbname']}"
        session.execute("SELECT pg_replication_origin_create(%s)", [origin])
        try:
            session.execute("SELECT pg_replication_origin_session_setup(%s)", [origin])
            with store["orders"].watch() as stream, session.transaction():
                session.execute("SELECT pg_replication_origin_xact_setup('0/AA', %s)", [at])
                session.execute("INSERT INTO docs.orders (id, data) VALUES ('o-1', '{}')")
            with store["orders"].watch(resume_after=stream.resume_token) as resumed:
                (event,) = take(resumed, 1)
            assert event.timestamp == at
        finally:
            session.execute("SELECT pg_replication_origin_session_reset()")
            session.execute("SELECT pg_replication_origin_drop(%s)", [origin])
