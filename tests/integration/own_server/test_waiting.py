"""Waiting for a consumer whose owner, server or rights are not as they should be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Lsn, Store
from pgdoc.errors import DatabaseError, HistoryLost, WaitTimeout
from tests.background import Background
from tests.integration.own_server.client import Client
from tests.integration.own_server.consumers import NAME, end_ownership, insert, take
from tests.integration.own_server.words import said, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream
    from pgdoc.server import LocalServer

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def read(stream: ChangeStream, seen: set[str]) -> None:
    for event in stream:
        seen.add(str(event.document_id))


def is_shared(stream: ChangeStream) -> bool:
    return stream._consumer is not None and stream._consumer._share.is_feeding


@pytest.mark.parametrize("beside", [False, True])
def test_a_consumer_at_rest_is_found_without_its_heartbeat(
    store: Store, owner: psycopg.Connection, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a call makes it store its progress, also after its session was lost."""
    monkeypatch.setattr("pgdoc.consumers.owned_slot._STATUS_S", 3600)
    with Store(store._conninfo) as other, other["orders"].watch(consumer=NAME) as stream:
        second = other["others"].watch() if beside else None
        seen: set[str] = set()
        with Background(read, stream, seen):
            try:
                if beside:
                    monkeypatch.setattr(
                        "pgdoc.consumers.owned_slot.HEARTBEAT_S", 1.0
                    )  # it shares while it has shown itself
                    wait_until(lambda: is_shared(stream))
                else:
                    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 3600)
                for number in range(3):
                    insert(store, number)
                    store.wait_for(NAME)
                    assert str(number) in seen
                    store["others"].insert(str(number), {})
                    store.wait_for(NAME)
                end_ownership(owner, store)
                insert(store, 3)
                store.wait_for(NAME)
                assert "3" in seen
            finally:
                stream.close()
                if second is not None:
                    second.close()


def test_a_wait_goes_on_when_the_owner_is_killed(dsn: str, store: Store) -> None:
    seen: set[str] = set()
    with Client(dsn, NAME) as client:
        insert(store, 1)
        assert client.ask("next") == "1"
        with store["orders"].watch(consumer=NAME) as standby, Background(read, standby, seen):
            try:
                with Background(store.wait_for, NAME):
                    client.kill()
                assert seen == {"1"}
            finally:
                standby.close()


def test_a_wait_outlasts_a_restart_of_the_server(cluster: LocalServer, store: Store) -> None:
    seen: set[str] = set()
    with Store(store._conninfo) as other, other["orders"].watch(consumer=NAME) as stream:
        insert(store, 1)
        lsn = store.now()
        with psycopg.connect(store._conninfo, autocommit=True) as listening:
            listening.execute(f"LISTEN pgdoc_call_{NAME}".encode())
            waiting = Background(store.wait_for, NAME, lsn, 60)
            waiting.__enter__()
            assert list(listening.notifies(timeout=20, stop_after=1))
        cluster.restart()
        with Background(read, stream, seen):
            waiting.__exit__()
            stream.close()
        assert seen == {"1"}


def test_a_flood_of_calls_keeps_a_consumer_from_nothing(store: Store, owner: psycopg.Connection) -> None:
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            owner.execute("SELECT pg_notify(%s, repeat('x', 7000))", [f"pgdoc_call_{NAME}"])

    with Store(store._conninfo) as other, other["orders"].watch(consumer=NAME) as stream, Background(call):
        try:
            for number in range(200):
                insert(store, number)
            assert len(take(stream, 200)) == 200
            stream.ack()
            store.wait_for(NAME)
        finally:
            done.set()


def test_progress_before_an_event_in_work_is_stored(store: Store) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        insert(store, 1)
        lsn = store.now()
        insert(store, 2)
        first, _ = take(stream, 2)
        with pytest.raises(WaitTimeout):
            store.wait_for(NAME, lsn, timeout=0.1)
        stream.ack(first)
        store.wait_for(NAME, lsn)
        with pytest.raises(WaitTimeout) as raised:
            store.wait_for(NAME, timeout=0.1)
        assert Lsn.parse(raised.value.reached) >= lsn


def test_a_consumer_of_a_copied_database_is_refused(store: Store, owner: psycopg.Connection) -> None:
    with store["orders"].watch(consumer=NAME):
        pass
    for table in ("consumers", "consumer_progress"):
        owner.execute(f"UPDATE pgdoc.{table} SET system_id = '1'".encode())
    assert "of which this one is a copy" in said(HistoryLost, lambda: store.wait_for(NAME))


@pytest.fixture
def role(owner: psycopg.Connection) -> Iterator[str]:
    """A role that may only write documents."""
    owner.execute("CREATE ROLE waits; GRANT USAGE ON SCHEMA docs TO waits")
    owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON docs.orders TO waits")
    yield "waits"
    owner.execute("DROP OWNED BY waits; DROP ROLE waits")


def test_a_role_without_the_right_is_told_which(store: Store, owner: psycopg.Connection, role: str) -> None:
    with (
        store["orders"].watch(consumer=NAME) as stream,
        Store(make_conninfo(store._conninfo, options=f"-c role={role}")) as other,
    ):
        assert stream.try_next() is None
        insert(other, 1)
        lsn = other.now()
        grant = f"GRANT SELECT ON pgdoc.consumers, pgdoc.consumer_progress TO {role}"
        assert f"As the catalog's owner, run {grant.replace(role, chr(34) + role + chr(34))}" in said(
            DatabaseError, lambda: other.wait_for(NAME, lsn)
        )
        owner.execute(grant.encode())
        take(stream, 1)
        assert stream.try_next() is None
        other.wait_for(NAME, lsn)
