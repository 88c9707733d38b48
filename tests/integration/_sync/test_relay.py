# Written by .ci/twins.py from tests/integration/_async/test_relay.py: change that file, and run it.
"""Relays into JetStream: each event once, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import Relay, RemoteStream, ChangeEvent, LogRefused
from pgdoc.runtime.primitives import call
from tests.engines import entries
from tests.integration._sync.relays import fresh_stream, relaying, until
from tests.integration._sync.workers import fresh_name, opened

if TYPE_CHECKING:
    from tests.engines import NatsServer


def test_a_log_has_each_event_once_also_when_the_relay_runs_again(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    stream, consumer = fresh_stream(), fresh_name()
    with opened(shared_dsn, schema) as store:
        store["orders"].insert("first", {})
        relay = Relay(store, consumer, f"{nats_server.url}/{stream}", "orders", partitions=4)
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            store["orders"].insert_many([(f"o-{n}", {"n": n}) for n in range(50)])
            until(lambda: relay.status().stored == 50)
        store["orders"].update("o-7", {"$set": {"n": "seven"}})
        with relaying(relay):
            store["orders"].delete("o-8")
            until(lambda: relay.status().sequence == 52)
        found = call(entries, nats_server.url, stream)
        events = [ChangeEvent.from_json(body) for _, _, body in found]
        assert [event.document_id for event in events] == [*(f"o-{n}" for n in range(50)), "o-7", "o-8"]
        assert [headers["Pgdoc-Token"] for _, headers, _ in found] == [str(event.resume_token) for event in events]


def test_a_relay_that_is_refused_leaves_no_consumer_behind(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, consumer = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    with opened(shared_dsn, schema) as store:
        with relaying(Relay(store, fresh_name(), url, "orders")) as relay:
            until(lambda: relay.status().state == "relaying")
        other = Relay(store, consumer, url, "orders", partitions=5)
        assert [each.verdict for each in other.check() if each.id == "relay-log"] == ["wrong"]
        with pytest.raises(LogRefused, match="another number of partitions"):
            other.run()
        assert consumer not in {each.name for each in store.consumers()}
        found = {each.id: each.verdict for each in Relay(store, consumer, url, "orders").check()}
        assert found["relay-log"] == "ok"
        assert "wrong" not in found.values()


def test_topics_are_relayed_in_order_with_the_changes_and_a_stream_of_the_log_selects_them(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    with opened(shared_dsn, schema) as store:
        relay = Relay(store, fresh_name(), url, "orders", topics=["order.*"], partitions=4)
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            with store.transaction() as tx:
                tx["orders"].insert("o-1", {"n": 1})
                tx.publish("order.shipped", {"total": 1.50}, key="o-1")
                tx.publish("other", {})
                tx["orders"].delete("o-1")
            store.publish("order.paid", [1])
            until(lambda: relay.status().stored == 4)
        found = [(event.event_type, event.topic) for event in all_of(RemoteStream(url, start="beginning"), 4)]
        assert found == [("insert", None), ("message", "order.shipped"), ("delete", None), ("message", "order.paid")]
        for topics, wanted in (
            (["order.*"], ["order.shipped", "order.paid"]),
            (["order.paid"], ["order.paid"]),
            (["*"], ["order.shipped", "order.paid"]),
        ):
            events = all_of(RemoteStream(url, topics=topics, start="beginning"), len(wanted))
            assert [event.topic for event in events] == wanted
        events = all_of(RemoteStream(url, "orders", topics=["order.paid"], start="beginning"), 3)
        assert [event.event_type for event in events] == ["insert", "delete", "message"]


def all_of(stream: RemoteStream, number: int) -> list[ChangeEvent]:
    """Return so many events, and make sure that there are no more."""
    with stream:
        events = [event for _ in range(number) if (event := stream.next(timeout=20)) is not None]
        assert stream.next(timeout=0.3) is None
        return events


def test_a_relay_whose_log_refuses_it_when_it_opens_drops_the_consumer_that_it_has_created(
    shared_dsn: str, schema: str, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, new, old = f"{nats_server.url}/{fresh_stream()}", fresh_name(), fresh_name()
    with opened(shared_dsn, schema) as store:
        store.create_consumer(old, "orders")
        for consumer in (new, old):
            relay = Relay(store, consumer, url, "orders")
            monkeypatch.setattr(relay._writer, "open", refuse)
            with pytest.raises(LogRefused, match="no right"):
                relay.run()
        names = {each.name for each in store.consumers()}
        assert new not in names
        assert old in names


def refuse(_config: object) -> None:
    """Raise what an engine may answer."""
    raise LogRefused("no right", reason="rights")


def test_a_stream_reads_the_events_of_a_log_that_has_cloudevents(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    with opened(shared_dsn, schema) as store, store.watch("orders") as stream:
        relay = Relay(store, fresh_name(), url, "orders", format="cloudevents")
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            store["orders"].insert("o-1", {"total": 12.50})
            store["orders"].delete("o-1")
            until(lambda: relay.status().stored == 2)
        wanted = [event for _ in range(2) if (event := stream.next(timeout=20)) is not None]
        found = all_of(RemoteStream(url, start="beginning"), 2)
        assert [event.to_json() for event in found] == [event.to_json() for event in wanted]
