"""A relay whose log goes away, comes back, is full or silent: each event once, in order, and the state says why."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pgdoc import Relay
from pgdoc.errors import LogGap
from pgdoc.relay.nats.connection import NatsConnection
from pgdoc.relay.nats.stream import NatsStream
from pgdoc.relay.targets import LogTarget
from tests.engines import log_of
from tests.integration._sync.relays import fresh_stream, until
from tests.integration._sync.workers import fresh_name
from tests.integration.relay_tests import edit, in_state, in_stream, purge, relayed
from tests.logs import CONFIG
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines import NatsServer


def test_a_server_that_is_killed_and_comes_back_misses_nothing(
    shared_dsn: str, schema: str, private_nats: NatsServer
) -> None:
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        with test.run() as relay:
            test.write(300)
            test.wait(1)
            private_nats.kill()
            test.write(300)
            in_state(relay, "waiting_for_log")
            assert "S" in str(relay.status().error)
            private_nats.start()
            test.wait()
            assert relay.status().error is None
        test.check()


@pytest.mark.parametrize("fault", ["reset", "end", "half_open", "vanish", "stall"])
def test_a_network_that_fails_in_the_middle_loses_and_repeats_nothing(
    shared_dsn: str, schema: str, nats_server: NatsServer, fault: str
) -> None:
    with (
        Proxy("127.0.0.1", nats_server.port) as proxy,
        relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test,
    ):
        with test.run(f"nats://127.0.0.1:{proxy.port}") as relay:
            test.write(50)
            test.wait()
            if fault == "stall":
                proxy.stall()
            test.write(2000)
            if fault in ("reset", "end"):
                proxy.cut(reset=fault == "reset")
            elif fault != "stall":
                getattr(proxy, fault)()
            test.write(2000)
            if fault == "stall":
                until(lambda: relay.status().interruptions > 1)
                proxy.resume()
            test.wait()
        test.check()


def test_a_relay_stops_while_its_log_is_away(shared_dsn: str, schema: str, private_nats: NatsServer) -> None:
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        with test.run() as relay:
            test.write(10)
            test.wait()
            private_nats.stop()
            test.write(10)
            in_state(relay, "waiting_for_log")
        assert relay.status().state == "closed"
        with test.run() as relay:
            in_state(relay, "waiting_for_log")
        private_nats.start()
        with test.run():
            test.wait()
        test.check()


def test_a_full_log_keeps_the_events_in_the_wal_until_there_is_room(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run(options="sync_interval=0s&max_bytes=200k") as relay:
            test.write(1000, size=200)
            status = in_state(relay, "log_full")
            assert "maximum bytes exceeded" in str(status.error)
            until(lambda: relay.status().interruptions > 5)
            assert relay.status().state == "log_full"
            edit(nats_server.url, test.stream, max_bytes=-1)
            test.wait()
            assert relay.status().state == "relaying"
        test.check()


def test_a_log_that_forgot_everything_goes_on_with_the_next_event(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run():
            test.write(40)
            test.wait()
            until(test.is_confirmed)
        with test.run(options="sync_interval=1h"):  # so that the consumer is confirmed 40 events before the log's end
            test.write(40)
            test.wait()
        purge(nats_server.url, test.stream)
        with test.run():
            test.write(1)
            test.wait()
        ((token, body),) = log_of(nats_server.url, test.stream)
        assert b'"document_id":"o-80"' in body
        assert token.encode() in body


def test_a_log_that_forgets_everything_while_it_is_written_gets_each_event_once(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run():
            for _ in range(5):
                test.write(100)
                test.wait()
                purge(nats_server.url, test.stream)
            test.write(1)
            test.wait()
        assert len(log_of(nats_server.url, test.stream)) == 1


def test_a_log_that_was_deleted_ends_the_relay_that_has_confirmed_what_it_had(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run():
            test.write(40)
            test.wait()
            until(test.is_confirmed)
        in_stream(nats_server.url, lambda context: context.delete_stream(test.stream))
        test.write(1)
        with pytest.raises(LogGap, match="on_lost='continue'"):
            test.run_to_its_end()
        with test.run(on_lost="continue"):
            test.wait(1)
        ((_, body),) = log_of(nats_server.url, test.stream)
        assert b'"document_id":"o-40"' in body


def test_a_log_that_is_deleted_before_anything_was_confirmed_is_written_anew(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        with test.run(options="sync_interval=1h") as relay:
            test.write(40)
            test.wait()
            in_stream(nats_server.url, lambda context: context.delete_stream(test.stream))
            test.write(1)
            until(lambda: relay.status().interruptions > 0)
            test.wait()
        test.check()


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_log_that_was_put_back_to_an_older_copy_gets_what_it_lacks(
    shared_dsn: str, schema: str, private_nats: NatsServer, tmp_path: Path, *, is_confirmed: bool
) -> None:
    with relayed(shared_dsn, schema, private_nats.url, "S") as test:
        test.store.set_history(timedelta(hours=1), 1 << 30)
        with test.run():
            test.write(40)
            test.wait()
            until(test.is_confirmed)
        private_nats.stop()
        shutil.copytree(private_nats.folder / "data", tmp_path / "copy")
        private_nats.start()
        with test.run(options="sync_interval=0s" if is_confirmed else "sync_interval=1h"):
            test.write(40)
            test.wait()
            if is_confirmed:
                until(test.is_confirmed)
            private_nats.stop()
            shutil.rmtree(private_nats.folder / "data")
            shutil.copytree(tmp_path / "copy", private_nats.folder / "data")
            private_nats.start()
            test.write(40)
            test.wait()
        test.check()


def test_a_log_that_lacks_what_history_no_longer_has_ends_the_relay(
    dsn: str, private_nats: NatsServer, tmp_path: Path
) -> None:
    with relayed(dsn, "docs", private_nats.url, "S") as test:
        test.store.set_history(timedelta(0), 0)
        with test.run():
            test.write(40)
            test.wait()
            until(test.is_confirmed)
        private_nats.stop()
        shutil.copytree(private_nats.folder / "data", tmp_path / "copy")
        private_nats.start()
        with test.run():
            test.write(40)
            test.wait()
            until(test.is_confirmed)
        private_nats.stop()
        shutil.rmtree(private_nats.folder / "data")
        shutil.copytree(tmp_path / "copy", private_nats.folder / "data")
        private_nats.start()
        with pytest.raises(LogGap, match="no longer keeps") as caught:
            test.run_to_its_end()
        assert caught.value.after is not None
        with test.run(on_lost="continue"):
            test.write(1)
            test.wait(41)
        assert b'"document_id":"o-80"' in log_of(private_nats.url, "S")[-1][1]


def test_relays_with_consumers_of_their_own_compete_for_one_log(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        test.write(500)
        other = fresh_name()
        test.store.create_consumer(other, "orders")
        with test.run() as first:
            test.wait()  # the log begins with the consumer that has more
            with test.run(consumer=other) as second:
                for _ in range(20):
                    test.write(100)
                test.wait()
                until(lambda: second.status().sequence == first.status().sequence)
        assert isinstance(second, Relay)
        test.check()


async def test_relays_with_consumers_of_their_own_may_create_the_log_at_once(nats_server: NatsServer) -> None:
    """The configurations of the two tell them apart, so that the server refuses the second."""
    target = LogTarget.parse(f"{nats_server.url}/{fresh_stream()}")
    connection = NatsConnection(target)
    await connection.open()
    try:
        stream = NatsStream(target, connection)
        first = replace(CONFIG, consumer="first", limit=1000)
        for config in (first, replace(first, consumer="second")):
            assert stream.config_of(await stream.create(config)) == first
    finally:
        await connection.close()


def test_a_consumer_that_was_dropped_goes_on_from_history(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    with relayed(shared_dsn, schema, nats_server.url, fresh_stream()) as test:
        test.store.set_history(timedelta(hours=1), 1 << 30)
        with test.run():
            test.write(40)
            test.wait()
        test.store.drop_consumer(test.consumer)
        test.write(40)
        with test.run():
            test.write(40)
            test.wait()
        test.check()


def test_large_events_arrive_in_parts_whatever_part_the_relay_ended_at(
    shared_dsn: str, schema: str, private_nats: NatsServer
) -> None:
    private_nats.stop()
    private_nats.config = "max_payload: 65536"
    private_nats.start()
    with (
        Proxy("127.0.0.1", private_nats.port) as proxy,
        relayed(shared_dsn, schema, private_nats.url, "S") as test,
    ):
        with test.run(f"nats://127.0.0.1:{proxy.port}") as relay:
            for size in (10, 48_000, 49_000, 50_000, 1_000_000):
                test.write(3, size=size)
                proxy.cut()
            until(lambda: relay.status().waiting == 0 and relay.status().sequence > 60)
        for _ in range(3):
            with test.run(f"nats://127.0.0.1:{proxy.port}") as relay:
                test.write(1, size=2_000_000)
                in_state(relay, "relaying", "waiting_for_log")
                proxy.cut()
        with test.run() as relay:
            test.write(1)
            until(lambda: b'"o-18"' in (log_of(private_nats.url, "S") or [("", b"")])[-1][1])
        test.check()


def test_a_relay_that_has_ended_leaves_nothing_behind(shared_dsn: str, schema: str, private_nats: NatsServer) -> None:
    with (
        Proxy("127.0.0.1", private_nats.port) as proxy,
        relayed(shared_dsn, schema, private_nats.url, "S") as test,
    ):
        url = f"nats://127.0.0.1:{proxy.port}"
        for fault in (proxy.cut, proxy.half_open, proxy.stall):
            with test.run(url) as relay:
                test.write(10)
                test.wait()
                fault()
                test.write(10)
                in_state(relay, "waiting_for_log")
        proxy.resume()
        names = {thread.name for thread in threading.enumerate()}
        assert not any("relay" in name for name in names)
        until(lambda: proxy.connections == 0)
        with test.run():
            test.wait()
        test.check()
