"""Relays into JetStream: each event once, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgdoc import AsyncRelay, AsyncRemoteStream, ChangeEvent, LogRefused
from pgdoc.runtime.primitives import async_call
from tests.engines import entries
from tests.integration._async.relays import fresh_stream, relaying, until
from tests.integration._async.workers import fresh_name, opened

if TYPE_CHECKING:
    from tests.engines import NatsServer


async def test_a_log_has_each_event_once_also_when_the_relay_runs_again(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    stream, consumer = fresh_stream(), fresh_name()
    async with opened(shared_dsn, schema) as store:
        await store["orders"].insert("first", {})
        relay = AsyncRelay(store, consumer, f"{nats_server.url}/{stream}", "orders", partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await store["orders"].insert_many([(f"o-{n}", {"n": n}) for n in range(50)])
            await until(lambda: relay.status().stored == 50)
        await store["orders"].update("o-7", {"$set": {"n": "seven"}})
        async with relaying(relay):
            await store["orders"].delete("o-8")
            await until(lambda: relay.status().sequence == 52)
        found = await async_call(entries, nats_server.url, stream)
        events = [ChangeEvent.from_json(body) for _, _, body in found]
        assert [event.document_id for event in events] == [*(f"o-{n}" for n in range(50)), "o-7", "o-8"]
        assert [headers["Pgdoc-Token"] for _, headers, _ in found] == [str(event.resume_token) for event in events]


async def test_a_relay_that_is_refused_leaves_no_consumer_behind(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, consumer = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    async with opened(shared_dsn, schema) as store:
        async with relaying(AsyncRelay(store, fresh_name(), url, "orders")) as relay:
            await until(lambda: relay.status().state == "relaying")
        other = AsyncRelay(store, consumer, url, "orders", partitions=5)
        assert [each.verdict for each in await other.check() if each.id == "relay-log"] == ["wrong"]
        with pytest.raises(LogRefused, match="another number of partitions"):
            await other.run()
        assert consumer not in {each.name for each in await store.consumers()}
        found = {each.id: each.verdict for each in await AsyncRelay(store, consumer, url, "orders").check()}
        assert found["relay-log"] == "ok"
        assert "wrong" not in found.values()


async def test_topics_are_relayed_in_order_with_the_changes_and_a_stream_of_the_log_selects_them(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    async with opened(shared_dsn, schema) as store:
        relay = AsyncRelay(store, fresh_name(), url, "orders", topics=["order.*"], partitions=4)
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            async with store.transaction() as tx:
                await tx["orders"].insert("o-1", {"n": 1})
                await tx.publish("order.shipped", {"total": 1.50}, key="o-1")
                await tx.publish("other", {})
                await tx["orders"].delete("o-1")
            await store.publish("order.paid", [1])
            await until(lambda: relay.status().stored == 4)
        found = [
            (event.event_type, event.topic) for event in await all_of(AsyncRemoteStream(url, start="beginning"), 4)
        ]
        assert found == [("insert", None), ("message", "order.shipped"), ("delete", None), ("message", "order.paid")]
        for topics, wanted in (
            (["order.*"], ["order.shipped", "order.paid"]),
            (["order.paid"], ["order.paid"]),
            (["*"], ["order.shipped", "order.paid"]),
        ):
            events = await all_of(AsyncRemoteStream(url, topics=topics, start="beginning"), len(wanted))
            assert [event.topic for event in events] == wanted
        events = await all_of(AsyncRemoteStream(url, "orders", topics=["order.paid"], start="beginning"), 3)
        assert [event.event_type for event in events] == ["insert", "delete", "message"]


async def all_of(stream: AsyncRemoteStream, number: int) -> list[ChangeEvent]:
    """Return so many events, and make sure that there are no more."""
    async with stream:
        events = [event for _ in range(number) if (event := await stream.next(timeout=20)) is not None]
        assert await stream.next(timeout=0.3) is None
        return events


async def test_a_relay_whose_log_refuses_it_when_it_opens_drops_the_consumer_that_it_has_created(
    shared_dsn: str, schema: str, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, new, old = f"{nats_server.url}/{fresh_stream()}", fresh_name(), fresh_name()
    async with opened(shared_dsn, schema) as store:
        await store.create_consumer(old, "orders")
        for consumer in (new, old):
            relay = AsyncRelay(store, consumer, url, "orders")
            monkeypatch.setattr(relay._writer, "open", refuse)
            with pytest.raises(LogRefused, match="no right"):
                await relay.run()
        names = {each.name for each in await store.consumers()}
        assert new not in names
        assert old in names


def refuse(_config: object) -> None:
    """Raise what an engine may answer."""
    raise LogRefused("no right", reason="rights")


async def test_a_stream_reads_the_events_of_a_log_that_has_cloudevents(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    async with opened(shared_dsn, schema) as store, store.watch("orders") as stream:
        relay = AsyncRelay(store, fresh_name(), url, "orders", format="cloudevents")
        async with relaying(relay):
            await until(lambda: relay.status().state == "relaying")
            await store["orders"].insert("o-1", {"total": 12.50})
            await store["orders"].delete("o-1")
            await until(lambda: relay.status().stored == 2)
        wanted = [event for _ in range(2) if (event := await stream.next(timeout=20)) is not None]
        found = await all_of(AsyncRemoteStream(url, start="beginning"), 2)
        assert [event.to_json() for event in found] == [event.to_json() for event in wanted]
