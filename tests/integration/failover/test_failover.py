"""Streams, consumers and documents go on at a promoted standby; what it does not have is an error, never a gap."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pgdoc import Store, new_id
from pgdoc.errors import ConsumerLost, HistoryLost, InvalidResumeToken, ServerUnreachable, TransactionLost
from tests.clusters import ask, wait_until
from tests.integration.failover.effects import Effects, effects, insert, orders

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ChangeStream
    from tests.clusters import Clusters
    from tests.fixtures.fix_clusters import OpenClusters

PATIENCE_S = 60.0
CONFIRMED = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep history more often than every five seconds."""
    monkeypatch.setattr("pgdoc.streams.bookmarks._INTERVAL_S", 0.5)


def test_all_go_on_at_the_promoted_standby(make_clusters: OpenClusters) -> None:
    clusters = make_clusters(synchronized=True)
    conninfo = clusters.conninfo()
    with Store(conninfo) as store:
        store.create_collection("effects")
        with store["orders"].watch() as stream, store["orders"].watch(consumer="mail") as mail, Effects(conninfo):
            clusters.wait_for_synced("pgdocb_")
            insert(store, "a", "b")
            tokens = [stream.next(timeout=PATIENCE_S).resume_token for _ in range(2)]  # type: ignore[union-attr]
            assert [mail.next(timeout=PATIENCE_S).document_id for _ in range(2)] == ["a", "b"]  # type: ignore[union-attr]
            mail.ack()
            wait_until(lambda: len(effects(conninfo)) == 2)
            clusters.wait_for_synced(*_consumers_slots(clusters, "mail", "billing"))
            clusters.wait_for_replay()
            clusters.fail_over()
            insert(store, "c", "d")
            for each in (stream, mail):
                assert [each.next(timeout=PATIENCE_S).document_id for _ in range(2)] == ["c", "d"]  # type: ignore[union-attr]
            wait_until(lambda: len(effects(conninfo)) == 4)
            with store["orders"].watch(resume_after=tokens[0]) as resumed:
                found = [resumed.next(timeout=PATIENCE_S) for _ in range(3)]
                assert [event and event.document_id for event in found] == ["b", "c", "d"]
        assert {tokens[0].timeline, found[-1] and found[-1].resume_token.timeline} == {1, 2}
        assert set(effects(conninfo).values()) == {1}


def _consumers_slots(clusters: Clusters, *names: str) -> list[str]:
    oid = ask(clusters.primary, "SELECT oid FROM pg_database WHERE datname = current_database()")
    return [f"pgdoc_{oid}_{name}" for name in names]


def test_a_standby_that_was_behind_is_an_error_and_nothing_is_left_out(clusters: Clusters) -> None:
    conninfo = clusters.conninfo()
    with Store(conninfo) as store, Store(conninfo) as other:  # a consumer beside a stream would share its walsender
        store.create_collection("effects")
        with (
            other["orders"].watch() as stream,
            store["orders"].watch(consumer="mail") as mail,
            Effects(conninfo) as billing,
        ):
            insert(store, "a", "b")
            first, second = (mail.next(timeout=PATIENCE_S) for _ in range(2))
            assert first is not None
            assert second is not None
            assert (first.document_id, second.document_id) == ("a", "b")
            mail.ack()
            wait_until(lambda: len(effects(conninfo)) == 2)
            names = _consumers_slots(clusters, "mail", "billing")
            clusters.wait_for_synced(*names)
            acknowledged = second.resume_token.position.commit_lsn
            wait_until(lambda: _synced_to(clusters, names[0]) > acknowledged)  # else "a" is given again
            clusters.wait_for_replay()
            clusters.cut_off()
            insert(store, "lost 1", "lost 2")
            assert [stream.next(timeout=PATIENCE_S).document_id for _ in range(4)] == ["a", "b", "lost 1", "lost 2"]  # type: ignore[union-attr]
            lost = stream.resume_token
            assert mail.next(timeout=PATIENCE_S).document_id == "lost 1"  # type: ignore[union-attr]
            wait_until(lambda: billing.done == 4)  # what is still being committed could end it in another way
            clusters.fail_over()
            insert(store, "c")
            with pytest.raises(HistoryLost, match="was given events that this server does not have"):
                _drain(mail)
            with pytest.raises(InvalidResumeToken, match="timeline"):
                _drain(stream)
            with pytest.raises(InvalidResumeToken, match="timeline"):
                store["orders"].watch(resume_after=lost)
            wait_until(lambda: effects(conninfo)["c"])
            assert any(isinstance(error, ConsumerLost | HistoryLost) for error in billing.errors)
            with store["orders"].watch(consumer="mail") as again:
                assert again.next(timeout=PATIENCE_S).document_id == "c"  # type: ignore[union-attr]
    assert orders(conninfo) == {"a", "b", "c"}
    assert effects(conninfo) == {"a": 1, "b": 1, "c": 1}


def _drain(stream: object) -> None:
    for _ in range(100):
        stream.next(timeout=PATIENCE_S)  # type: ignore[attr-defined]


def test_an_effect_that_the_standby_lacks_is_done_again(clusters: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standby has the event and its slot, which is not ahead of the lost checkpoint."""
    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 0.2)
    conninfo, name = clusters.conninfo(), _consumers_slots(clusters, "mail")[0]
    with Store(conninfo) as store:
        store.create_collection("effects")
        with store["orders"].watch(consumer="mail") as mail:
            insert(store, "first")
            _store_effect(store, mail, mail.next(timeout=PATIENCE_S))
            clusters.wait_for_synced(name)
            insert(store, "a", "b", "c")
            found = [mail.next(timeout=PATIENCE_S) for _ in range(3)]
            _store_effect(store, mail, found[0])
            clusters.wait_for_replay()
            second = found[1].resume_token.position.commit_lsn  # type: ignore[union-attr]
            wait_until(lambda: _synced_to(clusters, name) == second)
            with clusters.frozen_receiver():
                for event in found[1:]:
                    _store_effect(store, mail, event)
                time.sleep(3)  # long enough for many heartbeats, and for the standby to ask for slots
                assert ask(clusters.primary, CONFIRMED, name) == second
                clusters.kill_primary()
            clusters.promote()
            with pytest.raises(ConsumerLost, match="has its last checkpoint at"):
                mail.next(timeout=PATIENCE_S)
        assert [document.data["of"] for document in store["effects"].find(sort="id")] == ["first", "a"]
        with store["orders"].watch(consumer="mail") as mail:
            assert [mail.next(timeout=PATIENCE_S).document_id for _ in range(2)] == ["b", "c"]  # type: ignore[union-attr]


def _synced_to(clusters: Clusters, slot: str) -> int:
    ask(clusters.standby, "SELECT pg_reload_conf()")  # it then asks for slots at once
    return int(ask(clusters.standby, CONFIRMED, slot))


def _store_effect(store: Store, stream: ChangeStream, event: ChangeEvent | None) -> None:
    assert event is not None
    with store.transaction() as tx:
        tx["effects"].insert(new_id(), {"of": event.document_id})
        stream.checkpoint(event, tx)


def test_a_slot_that_the_standby_does_not_have_is_made_again(clusters: Clusters) -> None:
    conninfo = clusters.conninfo()
    with Store(conninfo) as store, store["orders"].watch() as stream:  # which keeps history
        insert(store, "a")
        stream.next(timeout=PATIENCE_S)
        clusters.wait_for_synced("pgdocb_")
        with Store(conninfo, failover=False) as other, other["orders"].watch(consumer="mail") as mail:
            insert(store, "b")
            assert mail.next(timeout=PATIENCE_S).document_id == "b"  # type: ignore[union-attr]
            clusters.wait_for_replay()
            clusters.fail_over()
            assert clusters.synced() == [name for name in clusters.synced() if name.startswith("pgdocb_")]
            insert(store, "c")
            assert mail.next(timeout=PATIENCE_S).document_id == "c"  # type: ignore[union-attr]


def test_without_slots_and_history_the_consumer_says_so_or_begins_again(clusters: Clusters) -> None:
    conninfo = clusters.conninfo()
    with Store(conninfo, failover=False) as store:
        with store["orders"].watch(consumer="mail") as mail:
            insert(store, "a")
            mail.next(timeout=PATIENCE_S)
        clusters.wait_for_replay()
        clusters.fail_over()
        insert(store, "b")
        with pytest.raises(HistoryLost, match="is gone"):
            store["orders"].watch(consumer="mail")
        with store["orders"].watch(consumer="mail", on_lost="recreate") as mail:
            insert(store, "c")
            assert mail.next(timeout=PATIENCE_S).document_id == "c"  # type: ignore[union-attr]
            assert mail.stats().recreated == 1


def test_documents_find_the_primary_and_leave_a_standby(clusters: Clusters) -> None:
    with Store(clusters.standby.conninfo) as store, Store(clusters.conninfo()) as other:
        with pytest.raises(ServerUnreachable, match="target_session_attrs=read-write"):
            store.create_collection("orders")  # the conninfo names the standby only
        with pytest.raises(ServerUnreachable, match="target_session_attrs=read-write"):
            store.watch()
        other.create_collection("orders")
        clusters.wait_for_replay()
        with pytest.raises(ServerUnreachable, match="the server is a standby"):
            store["orders"].insert("a", {})  # through a connection of the pool
        with pytest.raises(TransactionLost), store.transaction() as tx:
            tx["orders"].insert("a", {})
        assert store["orders"].get("a") is None  # a standby serves reads
        clusters.fail_over()
        insert(store, "a")  # the same address leads to a primary now
        insert(other, "b")
