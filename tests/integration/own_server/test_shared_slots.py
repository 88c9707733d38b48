"""The slot of a consumer that the hub feeds is advanced in time, and at little cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from pgdoc.consumers.ownership import Ownership
from pgdoc.runtime.deadline import deadline_scope
from tests.integration.own_server.consumers import NAME, confirmed, insert, take
from tests.integration.own_server.test_shared_consumers import beside, is_shared, is_stored, wait_until_shared
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    import psycopg

    from pgdoc import ChangeStream, Store

__all__ = ["beside"]

pytestmark = pytest.mark.usefixtures("in_a_hurry")


def test_a_slot_that_is_about_to_lose_its_wal_is_advanced_at_once(
    store: Store, owner: psycopg.Connection, beside: ChangeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.owned_slot._ADVANCE_S", 600)
    with store["orders"].watch(consumer=NAME) as stream:
        wait_until_shared(stream)
        try:
            owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
            owner.execute("SELECT pg_reload_conf()")
            for number in range(4):
                insert(store, number)
                owner.execute("SELECT pg_switch_wal()")
            events = take(stream, 4)
            stream.ack()
            wait_until(lambda: confirmed(owner) >= events[-1].resume_token.lsn)
            assert is_shared(stream)
        finally:
            owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            owner.execute("SELECT pg_reload_conf()")


def test_slow_advances_do_not_follow_each_other_ever_more_slowly(
    store: Store, owner: psycopg.Connection, beside: ChangeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.owned_slot._ADVANCE_PAUSE_FACTOR", 1e9)
    monkeypatch.setattr("pgdoc.consumers.owned_slot._LONGEST_ADVANCE_PAUSE_S", 0.1)
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream:
        wait_until_shared(stream)
        for number in range(2):
            insert(store, number)
            (event,) = take(stream, 1)
            stream.ack(event)
            wait_until(partial(is_stored, store, owner, event))
        assert is_shared(stream)


@pytest.mark.parametrize(
    "statement", ["SELECT pg_sleep(600)", "SELECT pg_replication_slot_advance('no_such_slot', '0/1')"]
)
def test_a_slot_that_can_not_be_advanced_costs_the_owner_no_session(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    with store["orders"].watch(consumer=NAME) as stream:
        consumer = stream._consumer
        assert consumer is not None
        ownership = Ownership(consumer._source, NAME, consumer.claim)
        with deadline_scope(8.0), monkeypatch.context() as context:
            context.setattr("pgdoc.consumers.slots.statement", lambda *_: statement)
            assert not ownership.advance(1)
        assert ownership.check()
        ownership.close()
