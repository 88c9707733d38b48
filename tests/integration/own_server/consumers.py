"""Helpers for tests of consumers: write, read, break things, and inspect the server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

import pgdoc
from pgdoc.consumers.owned_slot import OwnedSlot
from tests.integration.own_server.words import PATIENCE_S

if TYPE_CHECKING:
    import pytest

    from pgdoc import ChangeEvent, ChangeStream, ConsumerStatus, Store

NAME = "billing"


def insert(store: Store, *numbers: int) -> None:
    for number in numbers:
        store["orders"].insert(str(number), {})


def take(stream: ChangeStream, count: int) -> list[ChangeEvent]:
    events = [stream.next(timeout=PATIENCE_S) for _ in range(count)]
    assert None not in events
    return [event for event in events if event is not None]


def ids(events: list[ChangeEvent]) -> list[int]:
    return [int(event.document_id or 0) for event in events]


def effect(store: Store, stream: ChangeStream, event: ChangeEvent) -> None:
    with store.transaction() as tx:
        tx["audit"].insert(pgdoc.new_id(), {"of": event.document_id})
        stream.checkpoint(event, tx)


def status(store: Store) -> ConsumerStatus:
    (status,) = store.consumers()
    return status


def slot(owner: psycopg.Connection) -> str:
    ((name,),) = owner.execute(
        "SELECT format('pgdoc_%%s_%%s', oid, %s::text) FROM pg_database WHERE datname = current_database()", [NAME]
    ).fetchall()
    return str(name)


def confirmed(owner: psycopg.Connection) -> int:
    ((lsn,),) = owner.execute(
        "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s", [slot(owner)]
    ).fetchall()
    return int(lsn)


def end_walsender(owner: psycopg.Connection) -> None:
    owner.execute(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s", [slot(owner)]
    )


def end_ownership(owner: psycopg.Connection, store: Store) -> None:
    owner.execute("SELECT pg_terminate_backend(%s, 5000)", [status(store).owner_pid])


def silence(stream: ChangeStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the owner that feeds this stream never use its session at rest, not even when it opens the slot again."""
    consumer = stream._consumer
    assert consumer is not None
    silent, heartbeat = consumer.claim, OwnedSlot.heartbeat
    assert silent is not None

    def quietly(owned: OwnedSlot) -> None:
        if owned._ownership.claim != silent:
            heartbeat(owned)

    monkeypatch.setattr(OwnedSlot, "heartbeat", quietly)


def drop_slot(owner: psycopg.Connection) -> None:
    """Drop the slot of a consumer that may hold it; retry if the consumer reconnects first."""
    for _ in range(100):
        end_walsender(owner)
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            owner.execute("SELECT pg_drop_replication_slot(%s)", [slot(owner)])
            return
    raise AssertionError("the consumer reconnected first 100 times")


def drop_bookmarks(owner: psycopg.Connection) -> None:
    owner.execute(
        r"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'pgdocb\_%'"
    )
