# Written by .ci/twins.py from tests/integration/_async/test_logs.py: change that file, and run it.
"""Each engine's log has each event once, in order, whatever fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc import Relay, ChangeEvent
from pgdoc.runtime.primitives import call, sleep
from tests.integration._sync.relays import fresh_stream, relaying, until
from tests.integration._sync.workers import fresh_name, opened
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pgdoc import Store
    from tests.logs import Engine


def write(store: Store, first: int, last: int) -> None:
    """Write documents `first` to `last`, each in a transaction of its own or with nine others."""
    for number in range(first, last + 1, 10):
        ids = [f"o-{n}" for n in range(number, min(number + 10, last + 1))]
        if number % 3:
            store["orders"].insert_many([(each, {}) for each in ids])
        else:
            for each in ids:
                store["orders"].insert(each, {})


def check_exact(engine: Engine, log: str, count: int) -> None:
    """Check that a log has the inserts of documents 1 to `count`, each once and in order."""
    found = call(engine.entries, log)
    events = [ChangeEvent.from_json(body) for _, _, body in found]
    assert [event.document_id for event in events] == [f"o-{n}" for n in range(1, count + 1)]
    assert [token for _, token, _ in found] == [str(event.resume_token) for event in events]
    assert [sequence for sequence, _, _ in found] == list(range(1, count + 1))


def test_each_event_is_there_once_also_when_the_relay_runs_again(shared_dsn: str, schema: str, engine: Engine) -> None:
    log, consumer = fresh_stream(), fresh_name()
    with opened(shared_dsn, schema) as store:
        relay = Relay(store, consumer, engine.url(log), "orders", partitions=4)
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            write(store, 1, 300)
            until(lambda: relay.status().stored == 300)
        write(store, 301, 500)
        with relaying(relay):
            write(store, 501, 600)
            until(lambda: relay.status().sequence == 600)
        check_exact(engine, log, 600)


def test_each_event_is_there_once_when_the_server_is_killed(
    shared_dsn: str, schema: str, private_engine: Engine
) -> None:
    log, server = fresh_stream(), private_engine.server
    with opened(shared_dsn, schema) as store:
        relay = Relay(store, fresh_name(), private_engine.url(log), "orders", partitions=4)
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            for kill in range(3):
                write(store, kill * 400 + 1, kill * 400 + 400)
                until(lambda kill=kill: relay.status().sequence > kill * 400)  # type: ignore[misc]
                call(server.kill)
                until(lambda: relay.status().state != "relaying" or relay.status().stored == relay.status().sent)
                call(server.start)
            write(store, 1201, 1300)
            until(lambda: relay.status().sequence == 1300)
        check_exact(private_engine, log, 1300)


def test_each_event_is_there_once_when_connections_are_cut(shared_dsn: str, schema: str, engine: Engine) -> None:
    log = fresh_stream()
    with Proxy("127.0.0.1", engine.server.port) as proxy:
        with opened(shared_dsn, schema) as store:
            relay = Relay(store, fresh_name(), engine.url(log, proxy.port), "orders", partitions=4)
            with relaying(relay):
                until(lambda: relay.status().state == "relaying")
                for cut in range(8):
                    write(store, cut * 200 + 1, cut * 200 + 200)
                    call(proxy.cut)
                    sleep(0.05)
                until(lambda: relay.status().sequence == 1600)
            assert relay.status().interruptions > 0
            check_exact(engine, log, 1600)


def test_each_event_is_there_once_when_two_relays_write(shared_dsn: str, schema: str, engine: Engine) -> None:
    log = fresh_stream()
    with opened(shared_dsn, schema) as store:
        relays = [Relay(store, fresh_name(), engine.url(log), "orders", partitions=4) for _ in range(2)]
        with relaying(relays[0]), relaying(relays[1]):
            until(lambda: all(relay.status().state == "relaying" for relay in relays))
            write(store, 1, 1500)
            for _ in range(300):  # neither relay needs to get the last acknowledgement
                if len(call(engine.entries, log)) == 1500:
                    break
                sleep(0.2)
        check_exact(engine, log, 1500)


def test_a_large_event_is_there_in_parts(shared_dsn: str, schema: str, engine: Engine) -> None:
    log = fresh_stream()
    with opened(shared_dsn, schema) as store:
        relay = Relay(store, fresh_name(), engine.url(log), "orders", partitions=4)
        with relaying(relay):
            until(lambda: relay.status().state == "relaying")
            store["orders"].insert("small", {})
            store["orders"].insert("large", {"text": "x" * (20 << 20)})
            store["orders"].insert("last", {})
            until(lambda: relay.status().stored > 4 and relay.status().waiting == 0)
        found = call(engine.entries, log)
    parts = [body for _, _, body in found[1:-1]]
    assert len(parts) > 2
    assert [len(body) for body in parts[:-1]] == [len(parts[0])] * (len(parts) - 1)
    events = [ChangeEvent.from_json(body) for body in (found[0][2], b"".join(parts), found[-1][2])]
    assert [event.document_id for event in events] == ["small", "large", "last"]
    assert {token for _, token, _ in found[1:-1]} == {str(events[1].resume_token)}
