"""Streams read the WAL on a standby of PostgreSQL 18, while the primary has the documents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pgdoc import AsyncStore, Store
from pgdoc.errors import ServerUnreachable, UnsupportedServer
from pgdoc.replication import session
from pgdoc.replication.connection import connect
from pgdoc.replication.source import Source
from tests.clusters import ask
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ChangeStream
    from tests.clusters import Clusters

SLOTS = "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ %s AND NOT synced"


def take(stream: ChangeStream) -> ChangeEvent:
    event = stream.next(timeout=PATIENCE_S)
    assert event is not None
    return event


def ids(stream: ChangeStream, count: int) -> list[str]:
    return [str(take(stream).document_id) for _ in range(count)]


def count_slots(clusters: Clusters, prefix: str) -> tuple[int, int]:
    """Return how many slots the primary and the standby have, not counting synchronized ones."""
    return ask(clusters.primary, SLOTS, prefix), ask(clusters.standby, SLOTS, prefix)


def wait_until_no_slots(clusters: Clusters, prefix: str) -> None:
    """Wait for walsenders that have lost their client to drop their temporary slots."""
    wait_until(lambda: count_slots(clusters, prefix) == (0, 0))


def test_streams_read_on_the_standby_and_documents_on_the_primary(clusters: Clusters) -> None:
    primary, standby = clusters.primary.conninfo, clusters.standby.conninfo
    with Store(primary, replication_conninfo=standby) as store:
        store["docs"].insert("before", {})
        with store["docs"].watch() as stream, store.watch(snapshot=True) as copy:
            assert count_slots(clusters, "^pgdoch_") == (0, 1)
            store["docs"].insert("a", {"n": 1})
            store["docs"].insert_many([(f"m-{n}", {"n": n}) for n in range(200)])
            store["later"].insert("b", {"n": 2})
            assert ids(stream, 201) == ["a", *(f"m-{n}" for n in range(200))]
            seen = [event for event in (take(copy) for _ in range(204)) if event.document_id is not None]
            assert {event.document_id for event in seen} == {"before", "a", "b", *(f"m-{n}" for n in range(200))}
            assert len(seen) == 203  # each of them once, besides the event of the new collection
            token = stream.resume_token
            store["docs"].delete("a")
            assert take(stream).event_type == "delete"
        with store["docs"].watch(resume_after=token) as resumed:
            assert ids(resumed, 1) == ["a"]
        assert store.history().oldest is not None
        assert store.status().problem is None
        assert count_slots(clusters, "^pgdocb_") == (0, 1)
        with store._connections.connection() as connection:
            assert connection.prepare_threshold is not None


def test_what_a_standby_can_not_do_is_refused_at_once(clusters: Clusters, dsn: str) -> None:
    primary, standby = clusters.primary.conninfo, clusters.standby.conninfo
    with Store(primary, replication_conninfo=standby) as store:
        store.create_collection("docs")
        store["docs"].create_index("n")  # on the primary
    with Store(dsn, replication_conninfo=standby) as store:
        store.create_collection("docs")
        with pytest.raises(
            UnsupportedServer, match=r"conninfo leads to database .* both must lead to the same database"
        ):
            store.watch()
    wait_until_no_slots(clusters, "^pgdoc")


def test_a_consumer_has_its_slot_on_the_primary_and_shares_the_walsender_of_the_standby(clusters: Clusters) -> None:
    primary, standby = clusters.primary.conninfo, clusters.standby.conninfo
    walsenders = "SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE '%%consumer%%'"
    with Store(primary, replication_conninfo=standby) as store:
        with store["docs"].watch() as beside, store["docs"].watch(consumer="mine") as stream:
            written = 0
            deadline = time.monotonic() + PATIENCE_S
            while not written or ask(clusters.primary, walsenders):  # until the hub feeds the consumer
                assert time.monotonic() < deadline
                store["docs"].insert(f"d-{written}", {})
                event = take(stream)
                assert (event.document_id, take(beside).document_id) == (f"d-{written}",) * 2
                with store.transaction() as tx:
                    tx["effects"].insert(str(event.document_id), {})
                    stream.checkpoint(event, tx)
                written += 1
            assert count_slots(clusters, "^pgdoc_") == (1, 0)
        store["docs"].insert("later", {})
        with store["docs"].watch(consumer="mine") as stream:
            assert ids(stream, 1) == ["later"]
        assert store["effects"].count() == written
        assert count_slots(clusters, "^pgdocb_")[0] == 0, "nobody would drop a bookmark of the primary"
        assert store.recreate_consumer("mine")
        assert store.drop_consumer("mine")
        assert store.create_consumer("mine", "docs")
        assert count_slots(clusters, "^pgdoc_") == (1, 0)
        store["docs"].insert("between", {})
        with store["docs"].watch(consumer="mine") as stream:
            assert ids(stream, 1) == ["between"]
        assert store.drop_consumer("mine")
    wait_until_no_slots(clusters, "^pgdoc_")


async def test_async_streams_read_on_the_standby(clusters: Clusters) -> None:
    conninfos = clusters.primary.conninfo, clusters.standby.conninfo
    async with (
        AsyncStore(conninfos[0], replication_conninfo=conninfos[1]) as store,
        await store["docs"].watch() as stream,
    ):
        await store["docs"].insert("a", {})
        event = await stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "a"


def test_an_address_of_several_servers_does_not_hide_a_promotion(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that balances the load may lead each connection to another server."""
    primary, standby = clusters.primary.conninfo, clusters.standby.conninfo
    with Store(primary) as store:
        store.create_collection("docs")
    source = Source(standby, "docs", primary=primary)
    leads_to: list[str] = []
    monkeypatch.setattr(session, "connect", lambda _conninfo, **options: connect(leads_to.pop(0), **options))
    leads_to[:] = [primary, standby, standby]
    found = session.open_reader(source, None)
    found.reader.close()
    assert found.guard is not None
    for addresses in ([standby, standby, primary], [standby, primary]):
        leads_to[:] = addresses
        with pytest.raises(ServerUnreachable, match="replication_conninfo leads to more than one server"):
            session.open_reader(source, None)
    wait_until_no_slots(clusters, "^pgdocr")
