# Written by .ci/twins.py from tests/integration/_async/test_worker_odd_handlers.py: change that file, and run it.
"""Workers keep their promises whatever a handler does."""

from __future__ import annotations

import contextlib
import itertools
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Worker, CommitUnknown, StoreClosed
from pgdoc._sync import lane
from pgdoc.runtime.activities import Activity, Flag
from pgdoc.runtime.primitives import sleep
from tests.integration._sync.streams import PATIENCE_S
from tests.integration._sync.workers import count, effects, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    from pgdoc import Store, Transaction, ChangeEvent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)


def numbered(begin: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"o-{n:04}", {"n": n}) for n in range(begin, end)]


def names(begin: int, end: int) -> list[str]:
    return [f"o-{n:04}" for n in range(begin, end)]


def letters(store: Store, consumer: str) -> list[tuple[Any, ...]]:
    """Return document id, state and error of each dead letter of a consumer."""
    query = b"SELECT document_id, state, error FROM pgdoc.dead_letters WHERE consumer = %s ORDER BY id"
    return store._connections.fetch(query, [consumer])


def has_letters(store: Store, consumer: str, number: int) -> bool:
    return len(letters(store, consumer)) == number


def execute(store: Store, query: bytes, *params: object) -> None:
    with store.transaction() as tx:
        tx.connection.execute(query, params)


def test_a_handler_may_change_the_list_that_it_gets(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, attempts = Worker(store), fresh_name(), itertools.count()

        @worker.on("orders", consumer=name, retries=1)
        def take(tx: Transaction, events: list[ChangeEvent]) -> None:
            is_first = not next(attempts)
            while events:
                tx["effects"].insert(str(events.pop().document_id), {})
            if is_first:
                raise RuntimeError("again")

        worker.declare()
        store["orders"].insert_many(numbered(0, 5))
        with running(worker):
            count(store, "effects", 5)
            store["orders"].insert_many(numbered(5, 9))
            count(store, "effects", 9)
        assert letters(store, name) == []


def test_rolling_back_at_one_event_keeps_the_effects_of_the_others(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        def pick(tx: Transaction, event: ChangeEvent) -> None:
            tx["effects"].insert(str(event.document_id), {})
            if event.document_id in {"o-0003", "o-0007"}:
                raise psycopg.Rollback

        worker.declare()
        store["orders"].insert_many(numbered(0, 10))
        with running(worker):
            count(store, "effects", 8)
            store["orders"].insert_many(numbered(10, 11))
            count(store, "effects", 9)
        found = sorted([document.id for document in store["effects"].find({})])
        assert found == [each for each in names(0, 11) if each not in {"o-0003", "o-0007"}]
        assert letters(store, name) == []


def test_a_handler_that_fails_for_ever_does_not_hold_up_the_others(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc.workers.backlog._EVENTS", 5)
        bad = {"o-0000"}
        worker, name = Worker(store, hang_after=0.2), fresh_name()
        worker.on("orders", consumer=name, name="bad", batch=1, retries=None)(recorder("late", bad))
        worker.on("orders", consumer=name, name="good", batch=3)(recorder())
        worker.declare()
        with running(worker):
            store["orders"].insert_many(numbered(0, 40))
            count(store, "effects", 40)
            assert store["late"].count() == 0
            bad.clear()
            count(store, "late", 40)
        assert effects(store, "late") == names(0, 40)
        assert effects(store) == names(0, 40)


class UnprintableError(Exception):
    """Its text can't be printed."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_without_a_text_becomes_a_dead_letter(
    shared_dsn: str, schema: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=1)
        def fail(event: ChangeEvent) -> None:
            if event.full_document is not None:
                event.full_document.data["odd"] = object()  # can't be printed either
            raise UnprintableError

        worker.declare()
        store["orders"].insert_many(numbered(0, 2))
        with running(worker):
            until(partial(has_letters, store, name, 2))
        for _, state, error in letters(store, name):
            assert state == "dead"
            assert error.endswith("UnprintableError: (its text can't be printed)")
        assert "Logging error" not in capsys.readouterr().err


def test_an_unknown_commit_of_the_handler_counts_against_its_event(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=1)
        def fail(event: ChangeEvent) -> None:
            raise CommitUnknown(f"of another store, at {event.document_id}")

        worker.declare()
        store["orders"].insert_many(numbered(0, 2))
        with running(worker):
            until(partial(has_letters, store, name, 2))


def test_a_transaction_that_the_handler_makes_read_only_is_no_outage(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=1)
        def fail(tx: Transaction, event: ChangeEvent) -> None:
            if event.document_id == "o-0000":
                tx.connection.execute("SET TRANSACTION READ ONLY")

        worker.declare()
        store["orders"].insert_many(numbered(0, 2))
        with running(worker):
            until(partial(has_letters, store, name, 1))
        ((document_id, _, error),) = letters(store, name)
        assert document_id == "o-0000"
        assert "read-only transaction" in error


def test_a_handler_that_returns_work_which_nobody_does_fails(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        def fail(event: ChangeEvent) -> Any:
            return event.document_id and (n for n in range(3))

        worker.declare()
        store["orders"].insert_many(numbered(0, 1))
        with running(worker):
            until(partial(has_letters, store, name, 1))
        ((_, _, error),) = letters(store, name)
        assert "TypeError: the handler returned generator" in error


def test_what_waits_behind_a_letter_that_somebody_deleted_is_handled(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._sync.worker_consumer.LETTERS_S", 0.1)
        monkeypatch.setattr("pgdoc._sync.worker_consumer.PARKED_S", 0.1)
        worker, name = Worker(store), fresh_name()
        bad = {"o-0001"}
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad=bad))
        worker.declare()
        store["orders"].insert_many(numbered(0, 3))
        for number in range(3):
            store["orders"].update("o-0001", {"$set": {"n": number}})
        with running(worker):
            until(partial(has_letters, store, name, 4))
            bad.clear()
            execute(store, b"DELETE FROM pgdoc.dead_letters WHERE consumer = %s AND state = 'dead'", name)
            until(partial(has_letters, store, name, 0))
            count(store, "effects", 5)


def test_a_letter_that_becomes_due_while_later_ones_are_tried_again_keeps_its_order(
    shared_dsn: str, schema: str
) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, bad, tried = Worker(store), fresh_name(), {"x", "y"}, []

        @worker.on("orders", consumer=name, retries=0, on_dead="park")
        def take(tx: Transaction, event: ChangeEvent) -> None:
            if event.document_id in bad:
                raise RuntimeError("bad")
            if event.document_id == "y":  # somebody retries the first letters meanwhile
                store.retry_dead_letters(consumer=name, document_id="x")
            tried.append(f"{event.document_id} {event.full_document['n'] if event.full_document else 0}")
            tx["effects"].insert(str(event.resume_token), {})

        worker.declare()
        for n, document_id in enumerate(("x", "y", "x", "x")):
            store["orders"].replace(document_id, {"n": n}, upsert=True)
        with running(worker):
            until(partial(has_letters, store, name, 4))
            bad.clear()
            store.retry_dead_letters(consumer=name, document_id="y")
            until(partial(has_letters, store, name, 0))
        assert tried == ["y 1", "x 0", "x 2", "x 3"]


def test_a_batch_that_is_called_off_becomes_no_dead_letter(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, began = Worker(store, shutdown_timeout=0.3), fresh_name(), Flag()
        monkeypatch.setattr("pgdoc._sync.lane_server.MOST_LOSSES", 0)
        goes_on, ended = Flag(), Flag()

        @worker.on("orders", consumer=name, retries=0)
        def hang(tx: Transaction, event: ChangeEvent) -> None:
            began.set()
            try:
                goes_on.wait(20)
            finally:
                ended.set()
            tx["effects"].insert(str(event.document_id), {})

        worker.declare()
        store["orders"].insert("a", {})
        with running(worker):
            assert began.wait(20)
        goes_on.set()
        assert ended.wait(20)
        sleep(0.3)
        assert letters(store, name) == []
        again = Worker(store)
        again.on("orders", consumer=name, name="hang")(recorder())
        with running(again):
            count(store, "effects", 1)


def test_a_handler_that_was_called_off_is_not_called_again(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, began = Worker(store, shutdown_timeout=0.3), fresh_name(), Flag()
        goes_on, calls = Flag(), itertools.count()

        @worker.on("orders", consumer=name)
        def hang(tx: Transaction, event: ChangeEvent) -> None:
            next(calls)
            began.set()
            goes_on.wait(20)
            tx["effects"].insert(str(event.document_id), {})  # its connection is gone

        worker.declare()
        store["orders"].insert("a", {})
        with running(worker):
            assert began.wait(20)
        goes_on.set()
        sleep(0.5)
        assert next(calls) == 1


def test_a_handler_may_stop_its_worker_twice(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, ends = Worker(store, shutdown_timeout=600), fresh_name(), Flag()

        @worker.on("orders", consumer=name)
        def stop(event: ChangeEvent) -> None:
            worker.stop()
            worker.stop()
            assert event.document_id
            ends.wait(60)

        worker.declare()
        store["orders"].insert("a", {})
        activity = Activity("test-worker", worker.run)
        assert activity.wait(PATIENCE_S), "the second call waits, too"
        ends.set()
        assert activity.error is None


def test_a_store_that_is_closed_ends_its_workers(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as keeper:
        from pgdoc import Store  # noqa: PLC0415 (the name is for types above)

        with Store(shared_dsn, schema=schema) as store:
            worker, name = Worker(store), fresh_name()
            worker.on("orders", consumer=name)(recorder())
            worker.declare()
            keeper["orders"].insert_many(numbered(0, 3))
            activity = Activity("test-worker", worker.run)
            count(keeper, "effects", 3)
        assert activity.wait(PATIENCE_S), "the worker does not end"
        assert isinstance(activity.error, StoreClosed)


def test_a_consumer_that_can_not_be_opened_ends_the_worker(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name)(recorder())
        worker.declare()
        execute(store, b"UPDATE pgdoc.consumers SET system_id = 1 WHERE name = %s", name)
        activity = Activity("test-worker", worker.run)
        assert activity.wait(PATIENCE_S), "the worker does not end"
        assert activity.error is not None


def test_a_handler_whose_lane_was_called_off_is_not_called_beside_itself(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, goes_on = Worker(store, hang_after=0.1), fresh_name(), Flag()
        inside, most = [0], [0]

        @worker.on("orders", consumer=name)
        def hang(events: list[ChangeEvent]) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            while not goes_on.is_set():
                with contextlib.suppress(BaseException):  # it can't be cancelled
                    goes_on.wait(20)
            inside[0] -= 1
            store["effects"].insert_many([(str(event.resume_token), {}) for event in events])

        worker.declare()
        store["orders"].insert("a", {})
        with caplog.at_level(logging.INFO, "pgdoc.worker"):
            with running(worker):

                def is_inside() -> bool:
                    return inside[0] > 0

                def is_open_again() -> bool:
                    return caplog.text.count("is open, and runs") > times

                until(is_inside)
                try:
                    for times in (1, 2):  # noqa: B007 (`is_open_again` reads it)
                        execute(
                            store, b"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"
                        )
                        execute(
                            store,
                            b"UPDATE pgdoc.owners SET epoch = epoch + 1, holder = gen_random_uuid() WHERE name = %s",
                            name,
                        )
                        until(is_open_again)
                    sleep(0.5)
                finally:
                    goes_on.set()

                def is_done() -> bool:
                    return inside[0] == 0

                until(is_done)
        assert most[0] == 1
        assert caplog.text.count("did not end in time") == 1


def test_a_handler_that_hangs_in_its_turn_holds_up_the_others_once(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "CAUTIOUS_AFTER", 0)
    monkeypatch.setattr(lane, "_TURN_S", 0.5)
    with opened(shared_dsn, schema) as store:
        worker, name, began, goes_on = Worker(store), fresh_name(), Flag(), Flag()
        refused, take_turn = [], lane.Lane._take_turn

        def noting(of: lane.Lane) -> bool:
            has_turn = take_turn(of)
            refused.extend([] if has_turn else [of.registration.name])
            return has_turn

        monkeypatch.setattr(lane.Lane, "_take_turn", noting)

        @worker.on("orders", consumer=name, where={"document_id": "hangs"})
        def hang(events: list[ChangeEvent]) -> None:
            began.set()
            goes_on.wait(30 * len(events))

        worker.on("orders", consumer=name, name="good", where={"document_id": {"$ne": "hangs"}})(recorder())
        worker.declare()
        with running(worker):
            try:
                store["orders"].insert("hangs", {})
                assert began.wait(20)
                store["orders"].insert_many(numbered(0, 5))
                count(store, "effects", 5)
            finally:
                goes_on.set()
        assert refused == ["good"]


def test_an_event_that_can_not_be_read_becomes_a_dead_letter_whose_retry_says_so(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._sync.worker_consumer.LETTERS_S", 0.1)
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        def read(tx: Transaction, event: ChangeEvent) -> None:
            assert event.full_document is not None
            tx["effects"].insert(str(event.document_id), event.full_document.data)

        worker.declare()
        huge = f"INSERT INTO {schema}.orders (id, data) VALUES ('a', '{{\"n\": 1{'0' * 5000}}}')"
        execute(store, huge.encode())
        store["orders"].insert("b", {})
        with running(worker):
            count(store, "effects", 1)
            until(partial(has_letters, store, name, 1))
            store.retry_dead_letters(consumer=name)

            def is_dead() -> bool:
                return [state for _, state, _ in letters(store, name)] == ["dead"]

            until(is_dead)
            store["orders"].insert("c", {})
            count(store, "effects", 2)
        ((document_id, _, error),) = letters(store, name)
        assert document_id == "a"
        assert "Unreadable" in error or "no event" in error
