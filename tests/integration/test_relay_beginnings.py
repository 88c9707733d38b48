"""Where a relay goes on: inside a snapshot, beside a restarted PostgreSQL, at an event that can't be sent; and R3."""

from __future__ import annotations

import random
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pgdoc import ChangeEvent, Store
from pgdoc.errors import UnreadableDocument
from tests.engines import NatsCluster, log_of
from tests.integration._sync.relays import fresh_stream, until
from tests.integration._sync.workers import fresh_name
from tests.integration.relay_tests import EAGER, in_state, relayed
from tests.relay_process import RelayPlan, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgdoc.server import LocalServer
    from tests.engines import NatsServer


def applied(log: list[tuple[str, bytes]]) -> dict[str, object]:
    """Return the documents that the events leave, applied in their order."""
    documents: dict[str, object] = {}
    for _, body in log:
        event = ChangeEvent.from_json(body)
        assert event.document_id is not None
        if event.full_document is None:
            del documents[event.document_id]
        else:
            documents[event.document_id] = (event.full_document.version, event.full_document.data)
    return documents


@pytest.mark.parametrize("size", [20, 100_000], ids=["small", "in parts"])
def test_a_snapshot_whose_relay_is_killed_gives_the_collection(dsn: str, private_nats: NatsServer, size: int) -> None:
    dice = random.Random(size)
    private_nats.stop()
    private_nats.config = "max_payload: 65536"
    private_nats.start()
    count = 3000 if size < 1000 else 100
    with Store(dsn) as store:
        store.create_collection("orders")
        store["orders"].insert_many((f"o-{n}", {"text": "x" * size, "n": n}) for n in range(count))
        plan = RelayPlan(dsn, fresh_name(), f"{private_nats.url}/S?{EAGER}", snapshot=True)
        for kill in range(6):
            with RelayProcess(plan):
                until(lambda: bool(entries_of(private_nats)), 60)
                more = entries_of(private_nats) + dice.randrange(3)
                for n in dice.sample(range(count), 20):
                    store["orders"].update(f"o-{n}", {"$inc": {"n": 1}})
                store["orders"].insert(f"new-{kill}", {"text": "y" * size})
                store["orders"].delete(f"o-{kill}")
                until(lambda more=more: entries_of(private_nats) > more, 60)  # type: ignore[misc]
        with RelayProcess(plan):
            store["orders"].insert("last", {})
            documents = {each.id: (each.version, each.data) for each in store["orders"].find({})}
            until(lambda: applied(log_of(private_nats.url, "S")) == documents)
        log = log_of(private_nats.url, "S")
        first = [ChangeEvent.from_json(body).document_id for _, body in log if b'{"event_type":"snapshot"' in body]
        assert len(first) == len(set(first))
        store.drop_consumer(plan.consumer)


def entries_of(server: NatsServer) -> int:
    """Return how many entries the stream has; 0 if there is none."""
    import asyncio  # noqa: PLC0415

    import nats  # noqa: PLC0415

    async def count() -> int:
        client = await nats.connect(server.url)
        try:
            return (await client.jetstream().stream_info("S")).state.last_seq
        except nats.js.errors.NotFoundError:
            return 0
        finally:
            await client.close()

    return asyncio.run(count())


def test_a_restart_of_postgresql_loses_and_repeats_nothing(
    private_server: LocalServer, private_dsn: str, nats_server: NatsServer
) -> None:
    with relayed(private_dsn, "docs", nats_server.url, fresh_stream()) as test:
        with test.run():
            for _ in range(3):
                test.write(1000)
                private_server.restart()
            test.write(1)
            test.wait()
        test.check()


def test_an_event_that_cannot_be_printed_ends_the_relay_after_those_before_it(
    dsn: str, nats_server: NatsServer
) -> None:
    with relayed(dsn, "docs", nats_server.url, fresh_stream()) as test:
        test.write(3)
        nested = '{"a":' + "[" * 3000 + "]" * 3000 + "}"
        with test.store.transaction() as tx:  # the event of an update says what has changed inside
            tx.connection.execute("UPDATE docs.orders SET data = %s::jsonb WHERE id = 'o-1'", [nested])
        test.write(3)
        with pytest.raises(UnreadableDocument, match="on_lost='continue'") as caught:
            test.run_to_its_end()
        assert caught.value.document_id == "o-1"
        assert len(log_of(nats_server.url, test.stream)) == 3
        with test.run(on_lost="continue"):
            test.wait(6)
        ids = [ChangeEvent.from_json(body).document_id for _, body in log_of(nats_server.url, test.stream)]
        assert ids == [f"o-{n}" for n in range(6)]


@contextmanager
def three(folder: Path) -> Iterator[NatsCluster]:
    """Start three servers, and stop them."""
    cluster = NatsCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_three_servers_whose_leader_dies_or_falls_silent_lose_and_repeat_nothing(
    shared_dsn: str, schema: str, tmp_path: Path
) -> None:
    with three(tmp_path) as cluster, relayed(shared_dsn, schema, cluster.url, "S") as test:
        with test.run(options=f"{EAGER}&replicas=3") as relay:
            test.write(500)
            test.wait()
            leader = cluster.leader("S")
            leader.kill()
            test.write(500)
            test.wait()
            leader.start()
            leader = cluster.leader("S")
            leader.send(signal.SIGSTOP)
            test.write(500)
            test.wait()
            leader.send(signal.SIGCONT)
            test.write(500)
            test.wait()
            for server in cluster.servers:
                server.kill()
            test.write(500)
            in_state(relay, "waiting_for_log")
            for server in cluster.servers:
                server.start()
            test.wait()
        test.check()
