# Written by .ci/twins.py from tests/integration/_async/test_worker_log.py: change that file, and run it.
"""Workers whose events come from a log: the processes of a group divide its partitions among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Relay, Worker, InvalidInput, LogRefused
from pgdoc._sync import lane, worker_group
from pgdoc._sync.worker_partition import WorkerPartition
from pgdoc.relay.finding import LogPosition
from pgdoc.relay.groups.partition import OwnedPartition
from pgdoc.relay.inbox import Inbox, EntryBatch
from pgdoc.relay.log import LogEntry
from pgdoc.runtime.activities import Activity, Flag
from pgdoc.runtime.primitives import call, sleep
from pgdoc.workers import backlog
from tests import made_logs
from tests.integration._sync.relays import fresh_stream, relaying, until
from tests.integration._sync.workers import count, drop_letters, effects, fresh_name, opened, recorder, running
from tests.integration._sync.workers import until as until_true
from tests.made_logs import (
    IDS,
    append,
    body_of,
    delete_records,
    fill,
    message_of,
    records_of,
    token_of,
    truncate_message,
)

if TYPE_CHECKING:
    from pgdoc import Store, ChangeEvent
    from tests.engines import NatsServer

PARTITIONS = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)
    monkeypatch.setattr(worker_group, "LEASE_S", 3.0)


def numbered(begin: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"o-{n:04}", {"n": n}) for n in range(begin, end)]


def relay_of(store: Store, url: str) -> Relay:
    return Relay(store, fresh_name(), url, "orders", partitions=PARTITIONS)


def begun(relay: Relay) -> None:
    until(lambda: relay.status().state == "relaying")


def worker_of(store: Store, url: str, handler: Any, group: str, start: str = "beginning", **options: Any) -> Worker:
    worker = Worker(store, log=url, start=start)
    worker.on("orders", consumer=group, name="record", **{"batch": 7} | options)(handler)
    return worker


def test_each_event_of_a_log_has_one_effect_also_when_the_worker_runs_again(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    with opened(shared_dsn, schema) as store, relaying(relay_of(store, url)) as relay:
        begun(relay)
        worker = worker_of(store, url, recorder(), group)
        store["orders"].insert_many(numbered(0, 50))
        with running(worker):
            count(store, "effects", 50)
            store["orders"].insert_many(numbered(50, 80))
            count(store, "effects", 80)
        store["orders"].insert_many(numbered(80, 100))
        with running(worker):
            count(store, "effects", 100)
        assert sorted(effects(store)) == [name for name, _ in numbered(0, 100)]


def test_processes_divide_the_partitions_and_each_event_has_one_effect(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    calls: dict[str, list[str]] = {"first": [], "second": []}

    def counting(who: str) -> Any:
        record = recorder()

        def handle(tx: Any, events: list[ChangeEvent]) -> None:
            record(tx, events)
            calls[who] += [str(event.document_id) for event in events]

        return handle

    with opened(shared_dsn, schema) as store, relaying(relay_of(store, url)) as relay:
        begun(relay)
        first, second = (worker_of(store, url, counting(who), group) for who in calls)
        with running(first):
            store["orders"].insert_many(numbered(0, 20))
            count(store, "effects", 20)
            with running(second):
                until(lambda: len(second.status()) == PARTITIONS // 2 == len(first.status()))
                store["orders"].insert_many(numbered(20, 100))
                count(store, "effects", 100)
            store["orders"].insert_many(numbered(100, 120))  # all partitions come back
            count(store, "effects", 120)
        assert calls["second"]
        assert sorted(effects(store)) == [name for name, _ in numbered(0, 120)]


def test_a_poisonous_event_of_a_log_becomes_a_dead_letter_and_is_tried_again(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    bad = {"o-0007"}
    with opened(shared_dsn, schema) as store, relaying(relay_of(store, url)) as relay:
        begun(relay)
        worker = worker_of(store, url, recorder(bad=bad), group, retries=1)
        store["orders"].insert_many(numbered(0, 20))
        with running(worker):
            count(store, "effects", 19)
            letters = [each for each in store.dead_letters() if each.consumer.startswith(f"{group}#")]
            assert [each.document_id for each in letters] == ["o-0007"]
            found = {each.id: each.text for each in worker.check()}
            assert found["worker-dead-letters"] == 'handler "record" has dead letters: 1 dead'
            bad.clear()
            store.retry_dead_letters(letters[0].id)
            count(store, "effects", 20)
        drop_letters(store, letters[0].consumer)


def test_handlers_of_one_group_have_their_own_positions(shared_dsn: str, schema: str, nats_server: NatsServer) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    with opened(shared_dsn, schema) as store, relaying(relay_of(store, url)) as relay:
        begun(relay)
        store.create_collection("others")
        worker = worker_of(store, url, recorder(), group)
        worker.on("orders", consumer=group, name="odd", where={"full_document.data.n": {"$mod": [2, 1]}})(
            recorder("others")
        )
        store["orders"].insert_many(numbered(0, 40))
        with running(worker):
            count(store, "effects", 40)
            count(store, "others", 20)
        assert {int(name[2:]) % 2 for name in effects(store, "others")} == {1}


def test_a_worker_on_a_log_says_what_it_can_t_do(shared_dsn: str, schema: str, nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    with opened(shared_dsn, schema) as store:
        worker = worker_of(store, url, recorder(), fresh_name())
        with pytest.raises(InvalidInput, match="nothing to declare"):
            worker.declare()
        with pytest.raises(ValueError, match="a log has no snapshot"):
            worker_of(store, url, recorder(), fresh_name(), snapshot=True)
        with pytest.raises(InvalidInput, match="start must be"):
            Worker(store, log=url, start="yesterday")
        found = {each.id: each for each in worker.check()}
        assert found["worker-log"].verdict == "wrong"
        assert "does not exist" in found["worker-log"].text


def partition_of(store: Store, handler: Any, inbox: Inbox) -> tuple[OwnedPartition, WorkerPartition]:
    """Return a partition that this process has, and what runs the handler for it."""
    worker = Worker(store, log="nats://127.0.0.1/UNUSED")
    worker.on("orders", consumer=fresh_name(), name="record")(handler)
    ((group, registrations),) = worker._registrations.items()
    owned = OwnedPartition(0, 1, LogPosition(0, f"0/100.{IDS}", "x"), 1)
    each = WorkerPartition(
        owned,
        inbox,
        store,
        f"{group}#0",
        registrations,
        log="UNUSED",
        member="m",
        valid_until=lambda: float("inf"),
        hang_after_s=60,
        shutdown_s=30,
    )
    return owned, each


def test_entries_that_arrive_while_a_partition_is_given_up_are_left_for_the_next_owner(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(10, 1 << 20)
    with opened(shared_dsn, schema) as store:
        owned, each = partition_of(store, recorder(), inbox)
        take = inbox.take

        def take_and_leave(timeout_s: float | None = None) -> bool:
            inbox.put(EntryBatch([LogEntry(1, token_of(1), body_of(1), None)], 1, owned))
            has_some = take(timeout_s)
            owned.leave()
            return has_some

        monkeypatch.setattr(inbox, "take", take_and_leave)
        activity = Activity("test-partition", each.run)
        assert activity.wait(30)
        assert activity.error is None
    assert owned.acknowledged.sequence == 0
    assert owned.is_settled


def test_a_partition_is_not_settled_while_events_are_on_their_way_to_handlers(shared_dsn: str, schema: str) -> None:
    inbox = Inbox(10, 1 << 20)
    with opened(shared_dsn, schema) as store:
        owned, each = partition_of(store, recorder(), inbox)
        inbox.put(EntryBatch([LogEntry(1, token_of(1), body_of(1), None)], 1, owned))
        assert len(each.next_batch(1.0)) == 1
        assert not owned.is_settled


def test_a_group_refuses_another_log_whose_positions_are_not_those_of_its_handlers(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    first, second = (f"{nats_server.url}/{fresh_stream()}" for _ in range(2))
    group = fresh_name()
    with opened(shared_dsn, schema) as store:
        call(fill, first, range(50, 60))
        call(fill, second, range(20))
        with running(worker_of(store, first, recorder(), group)):
            count(store, "effects", 10)
        worker = worker_of(store, second, recorder(), group)
        activity = Activity("test-worker", worker.run)
        activity.wait(30)
        worker.stop()
        assert isinstance(activity.error, LogRefused)
        assert "use another group for this log" in str(activity.error)
        found = {each.id: each.verdict for each in worker.check()}
        assert found["worker-other-log"] == "wrong"
        assert found["worker-rights"] == "ok"
        with running(worker_of(store, second, recorder(), fresh_name())):
            count(store, "effects", 30)


def test_a_slow_handler_that_is_alone_in_its_group_is_waited_for(
    shared_dsn: str,
    schema: str,
    nats_server: NatsServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "_EVENTS", 5)
    url, record = f"{nats_server.url}/{fresh_stream()}", recorder()

    def slow(tx: Any, events: list[ChangeEvent]) -> None:
        sleep(0.3)
        record(tx, events)

    with opened(shared_dsn, schema) as store:
        call(fill, url, range(60))
        worker = Worker(store, log=url, start="beginning", hang_after=0.2)
        worker.on("orders", consumer=fresh_name(), batch=2)(slow)
        with running(worker):
            count(store, "effects", 60)
    assert "makes no progress" not in caplog.text


def test_a_new_worker_runs_on_a_log_without_entries(shared_dsn: str, schema: str, nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_stream()}"
    with opened(shared_dsn, schema) as store:
        call(fill, url, [])
        with running(worker_of(store, url, recorder(), fresh_name())):
            call(fill, url, range(5))
            count(store, "effects", 5)
        with running(worker_of(store, url, recorder(), fresh_name(), start="now")) as worker:
            until(lambda: len(worker.status()) == 8)
            call(fill, url, range(5, 8))
            count(store, "effects", 8)


def test_an_event_of_a_whole_collection_comes_once_in_each_partition(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, calls = f"{nats_server.url}/{fresh_stream()}", 0

    def handle(tx: Any, event: ChangeEvent) -> None:
        nonlocal calls
        calls += event.event_type == "truncate"

    with opened(shared_dsn, schema) as store:
        call(append, url, [message_of(1), truncate_message(2)])
        worker = worker_of(store, url, handle, fresh_name())
        with running(worker):
            until(lambda: sum(each.handled for each in worker.status()) == 1 + made_logs.PARTITIONS)
    assert calls == made_logs.PARTITIONS


def test_members_go_on_where_they_were_after_the_records_of_the_group_were_deleted(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()

    def has_begun() -> bool:
        return f"{group}.begun" in call(records_of, url, group)

    with opened(shared_dsn, schema) as store:
        call(fill, url, range(20))
        with running(worker_of(store, url, recorder(), group)):
            count(store, "effects", 20)
            assert call(delete_records, url, group) > 2
            call(fill, url, range(20, 40))
            count(store, "effects", 40)
            until_true(has_begun)


def test_no_event_is_handled_beside_a_call_of_before_the_partition_was_lost_and_taken_again(
    shared_dsn: str, schema: str, nats_server: NatsServer
) -> None:
    url, group = f"{nats_server.url}/{fresh_stream()}", fresh_name()
    goes_on, at_once, most, found = Flag(), 0, 0, set()

    def handle(event: ChangeEvent) -> None:
        nonlocal at_once, most
        assert event.full_document is not None
        found.add(event.full_document.data["n"])
        at_once += 1
        most = max(most, at_once)
        goes_on.wait(30)
        at_once -= 1

    with opened(shared_dsn, schema) as store:
        call(fill, url, [5])
        with running(worker_of(store, url, handle, group)):
            until(lambda: at_once == 1)
            assert call(delete_records, url, group) > 2
            sleep(2.5)  # longer than it takes to lose the partition, take it again and call the handler
            goes_on.set()
            call(fill, url, [105])  # of the same document
            until(lambda: 105 in found)
    assert most == 1
