# Written by .ci/twins.py from tests/integration/_async/test_relay_redis.py: change that file, and run it.
"""Relays into Redis: what happens to the log when the server forgets, is full, or is replaced."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgdoc import Relay, ChangeEvent
from pgdoc.runtime.primitives import call
from tests.integration._sync.relays import relaying, until
from tests.integration._sync.workers import fresh_name, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import Store
    from tests.redis_server import RedisServer


@contextmanager
def running(store: Store, url: str) -> Iterator[Relay]:
    relay = Relay(store, fresh_name(), url, "orders", partitions=4)
    with relaying(relay):
        until(lambda: relay.status().state == "relaying")
        yield relay


def insert(store: Store, first: int, last: int) -> None:
    store["orders"].insert_many([(f"o-{n}", {}) for n in range(first, last + 1)])


def check_exact(server: RedisServer, count: int) -> None:
    found = call(server.entries, "ORDERS")
    events = [ChangeEvent.from_json(body) for _, _, body in found]
    assert [event.document_id for event in events] == [f"o-{n}" for n in range(1, count + 1)]
    assert [sequence for sequence, _, _ in found] == list(range(1, count + 1))


def test_what_a_server_with_snapshots_only_has_forgotten_is_sent_again(
    shared_dsn: str, schema: str, private_redis: RedisServer
) -> None:
    private_redis.config = "appendonly no\nsave 3600 1"
    call(private_redis.kill)
    call(private_redis.start)
    with opened(shared_dsn, schema) as store, running(store, f"{private_redis.url}/ORDERS") as relay:
        insert(store, 1, 300)
        until(lambda: relay.status().sequence == 300)
        call(private_redis.ask, "SAVE")
        insert(store, 301, 600)
        until(lambda: relay.status().sequence == 600)
        call(private_redis.kill)
        call(private_redis.start)
        insert(store, 601, 700)
        until(lambda: relay.status().sequence == 700)
        check_exact(private_redis, 700)


def test_a_server_that_has_forgotten_the_whole_log_gets_all_that_is_not_confirmed(
    shared_dsn: str, schema: str, private_redis: RedisServer
) -> None:
    url = f"{private_redis.url}/ORDERS?confirm_after=1h"
    with opened(shared_dsn, schema) as store, running(store, url) as relay:
        insert(store, 1, 300)
        until(lambda: relay.status().sequence == 300)
        call(private_redis.ask, "FLUSHALL")
        insert(store, 301, 400)
        until(lambda: relay.status().sequence == 400)
        check_exact(private_redis, 400)


def test_a_relay_waits_for_room_and_goes_on(shared_dsn: str, schema: str, private_redis: RedisServer) -> None:
    with opened(shared_dsn, schema) as store, running(store, f"{private_redis.url}/ORDERS") as relay:
        insert(store, 1, 100)
        until(lambda: relay.status().sequence == 100)
        call(private_redis.ask, "CONFIG", "SET", "maxmemory", "1kb")
        insert(store, 101, 200)
        until(lambda: relay.status().state == "log_full")
        call(private_redis.ask, "CONFIG", "SET", "maxmemory", "0")
        until(lambda: relay.status().sequence == 200)
        check_exact(private_redis, 200)


def test_a_promoted_replica_gets_what_it_lacks(
    shared_dsn: str, schema: str, private_redis: RedisServer, second_redis: RedisServer
) -> None:
    call(second_redis.ask, "REPLICAOF", "127.0.0.1", str(private_redis.port))
    url = f"redis://127.0.0.1:{private_redis.port},127.0.0.1:{second_redis.port}/ORDERS?confirm_after=1h"
    with opened(shared_dsn, schema) as store, running(store, url) as relay:
        insert(store, 1, 300)
        until(lambda: relay.status().sequence == 300)
        until(lambda: b"300" in (second_redis.ask("HGET", "{ORDERS}:log", "sequence") or b""))
        call(second_redis.ask, "REPLICAOF", "NO", "ONE")  # from now on, it gets nothing
        insert(store, 301, 600)
        until(lambda: relay.status().sequence == 600)
        call(private_redis.kill)
        insert(store, 601, 700)
        until(lambda: relay.status().sequence == 700)
        check_exact(second_redis, 700)
