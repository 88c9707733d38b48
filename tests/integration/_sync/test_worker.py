# Written by .ci/twins.py from tests/integration/_async/test_worker.py: change that file, and run it.
"""Workers: effects and positions commit together, and a handler that fails gets its event again."""

from __future__ import annotations

import logging
import random
import string
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store, Worker, DatabaseError, SerializationFailure
from pgdoc._sync import lane
from pgdoc.runtime.activities import Flag
from pgdoc.runtime.primitives import sleep
from tests.integration._sync.workers import count, effects, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    from pgdoc import Transaction, ChangeEvent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(lane, "LONGEST_DELAY_S", 0.05)


def numbered(begin: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"o-{n:04}", {"n": n}) for n in range(begin, end)]


def names(begin: int, end: int) -> list[str]:
    return [f"o-{n:04}" for n in range(begin, end)]


def test_each_event_has_one_effect_also_when_the_worker_runs_again(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker = Worker(store)
        worker.on("orders", consumer=fresh_name(), batch=7)(recorder())
        assert worker.declare() == [next(iter(worker._registrations))]
        assert worker.declare() == []
        store["orders"].insert_many(numbered(0, 50))
        with running(worker):
            count(store, "effects", 50)
            store["orders"].insert_many(numbered(50, 80))
            count(store, "effects", 80)
        store["orders"].insert_many(numbered(80, 100))
        with running(worker):
            count(store, "effects", 100)
        assert effects(store) == names(0, 100)


def test_handlers_that_share_a_consumer_have_their_own_positions_and_filters(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name, name="all")(recorder("effects"))
        worker.on("orders", consumer=name, name="even", where={"full_document.data.n": {"$in": [0, 2, 4]}})(
            recorder("even")
        )
        worker.on("other", consumer=name, name="other")(recorder("others"))
        worker.declare()
        store["orders"].insert_many(numbered(0, 6))
        store["other"].insert("x", {})
        for _ in range(2):
            with running(worker):
                count(store, "effects", 6)
                count(store, "even", 3)
                count(store, "others", 1)
        assert effects(store) == names(0, 6)
        assert effects(store, "even") == ["o-0000", "o-0002", "o-0004"]


def test_a_poisonous_event_becomes_a_dead_letter_and_the_others_are_handled(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name, retries=2)(recorder(bad={"o-0033"}))
        worker.declare()
        store["orders"].insert_many(numbered(0, 60))
        with running(worker):
            count(store, "effects", 59)
        assert effects(store) == [each for each in names(0, 60) if each != "o-0033"]
        (letter,) = store.dead_letters(consumer=name)
        assert (letter.document_id, letter.state, letter.attempts) == ("o-0033", "dead", 3)
        assert letter.error == "RuntimeError: no o-0033"
        assert letter.event is not None
        assert letter.event.full_document is not None
        assert letter.event.full_document.data == {"n": 33}
        ((status),) = worker.status()
        assert (status.handled, status.dead, status.state) == (59, 1, "closed")


@dataclass
class Numbered:
    n: int


def test_a_handler_gets_models_and_what_is_not_valid_becomes_a_dead_letter(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, found = Worker(store), fresh_name(), list[Numbered]()

        @worker.on("orders", consumer=name, snapshot=True, retries=0, model=Numbered)
        def handle(event: ChangeEvent[Numbered]) -> None:
            assert event.full_document is not None
            found.append(event.full_document.data)

        store["orders"].insert("a", {"n": 1})
        worker.declare()
        store["orders"].insert_many([("b", {"n": "2"}), ("c", {"n": 3})])
        with running(worker):

            def has_failed() -> bool:
                return bool(store.dead_letters(consumer=name, state="dead")) and len(found) == 2

            until(has_failed)
            (letter,) = store.dead_letters(consumer=name)
            assert letter.error is not None
            assert letter.error.startswith("pgdoc.InvalidModel: document 'b' of collection")
            store["orders"].update("b", {"$set": {"n": 4}})

            def all_are_handled() -> bool:
                return len(found) == 3

            until(all_are_handled)
        assert found == [Numbered(1), Numbered(3), Numbered(4)]
        assert store.drop_dead_letters(consumer=name) == 1


def test_later_events_wait_behind_a_dead_letter_until_it_is_retried(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        bad = {"o-0001"}
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad=bad))
        worker.declare()
        store["orders"].insert_many(numbered(0, 3))
        for number in range(3):
            store["orders"].update("o-0001", {"$set": {"n": number}})
        with running(worker):
            count(store, "effects", 2)

            def all_are_stored() -> bool:
                return len(store.dead_letters(consumer=name)) == 4

            until(all_are_stored)
            states = [letter.state for letter in store.dead_letters(consumer=name)]
            assert states == ["dead", "parked", "parked", "parked"]
            bad.clear()
            store.retry_dead_letters(consumer=name)
            count(store, "effects", 6)
            store["orders"].update("o-0001", {"$set": {"n": 9}})
            count(store, "effects", 7)
        assert effects(store) == ["o-0000", "o-0002", *["o-0001"] * 5]
        assert store.dead_letters(consumer=name) == []


def test_a_dead_letter_that_fails_again_stays_with_one_more_attempt(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad={"o-0000"}))
        worker.declare()
        store["orders"].insert_many(numbered(0, 1))
        store["orders"].update("o-0000", {"$set": {"n": 5}})

        def attempts_are(number: int) -> bool:
            letters = store.dead_letters(consumer=name)
            return [each.state for each in letters] == ["dead", "parked"] and letters[0].attempts == number

        def is_dead() -> bool:
            return attempts_are(1)

        def has_failed_again() -> bool:
            return attempts_are(2)

        with running(worker):
            until(is_dead)
            store.retry_dead_letters(consumer=name)
            until(has_failed_again)


def test_a_conflict_is_repeated_and_counts_for_nothing(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        attempts: list[int] = []
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        def conflict(tx: Transaction, event: ChangeEvent) -> None:
            attempts.append(1)
            if len(attempts) < 4:
                raise SerializationFailure("another transaction", sqlstate="40001")
            tx["effects"].insert(str(event.document_id), {})

        worker.declare()
        store["orders"].insert("a", {})
        with running(worker):
            count(store, "effects", 1)
        assert store.dead_letters(consumer=name) == []


def test_a_handler_without_a_transaction_gets_what_it_failed_at_again(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        seen: list[str | None] = []
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name)
        def call(event: ChangeEvent) -> None:
            seen.append(event.document_id)
            if seen.count(event.document_id) < 2:
                raise OSError("503")

        worker.declare()
        store["orders"].insert_many(numbered(0, 3))

        def has_all() -> bool:
            return len(seen) >= 6

        with running(worker):
            until(has_all)
        with running(worker):
            sleep(0.3)
        assert seen == ["o-0000", "o-0000", "o-0001", "o-0001", "o-0002", "o-0002"]


def test_rolling_back_in_a_handler_passes_the_event_without_an_effect(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, batch=1)
        def pick(tx: Transaction, event: ChangeEvent) -> None:
            tx["effects"].insert(str(event.document_id), {})
            if event.document_id == "o-0001":
                raise psycopg.Rollback

        worker.declare()
        store["orders"].insert_many(numbered(0, 3))
        with running(worker):
            count(store, "effects", 2)
        assert sorted([document.id for document in store["effects"].find({})]) == ["o-0000", "o-0002"]


def test_a_handler_that_hangs_is_reported_and_does_not_hold_up_the_others(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc.workers.backlog._EVENTS", 5)
        worker, name, goes_on = Worker(store, hang_after=0.2), fresh_name(), Flag()
        slow: list[str | None] = []

        @worker.on("orders", consumer=name, name="slow", batch=1)
        def hang(event: ChangeEvent) -> None:
            goes_on.wait()
            slow.append(event.document_id)

        worker.on("orders", consumer=name, name="quick", batch=3)(recorder())
        worker.declare()
        with caplog.at_level(logging.WARNING, "pgdoc.worker"):
            with running(worker):
                store["orders"].insert_many(numbered(0, 40))
                count(store, "effects", 40)
                assert slow == []
                goes_on.set()

                def has_all() -> bool:
                    return len(slow) >= 40

                until(has_all)
        assert slow == names(0, 40)
        assert effects(store) == names(0, 40)
        assert "has been running for" in caplog.text
        assert "the others go on" in caplog.text


def test_a_worker_that_stops_rolls_back_what_does_not_end(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name, began = Worker(store, shutdown_timeout=0.3), fresh_name(), Flag()
        never = Flag()

        @worker.on("orders", consumer=name)
        def hang(tx: Transaction, event: ChangeEvent) -> None:
            tx["effects"].insert(str(event.document_id), {})
            began.set()
            never.wait(20)

        worker.declare()
        store["orders"].insert("a", {})
        with running(worker):
            assert began.wait(20)
        assert "did not end in time: its batch is rolled back" in caplog.text
        never.set()
        assert store["effects"].count() == 0
        again = Worker(store)
        again.on("orders", consumer=name)(recorder())
        with running(again):
            count(store, "effects", 1)


def test_a_second_worker_stands_by(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        name = fresh_name()
        first, second = Worker(store), Worker(store)
        first.on("orders", consumer=name)(recorder("effects"))
        second.on("orders", consumer=name)(recorder("effects2"))
        first.declare()
        with running(first):
            store["orders"].insert_many(numbered(0, 5))
            count(store, "effects", 5)
            with running(second):

                def stands_by() -> bool:
                    return [each.state for each in second.status()] == ["standby"]

                until(stands_by)
                first.stop()

                def took_over() -> bool:
                    return [each.state for each in second.status()] == ["idle"]

                until(took_over)
                store["orders"].insert_many(numbered(5, 9))
                count(store, "effects2", 4)


def test_a_function_that_is_no_handler_is_refused_with_the_reason() -> None:
    worker = Worker(Store("host=nowhere.invalid"))
    decorate = worker.on("orders", consumer="c")

    def wrong(events: list[ChangeEvent], more: int) -> None: ...

    def right(tx: Transaction, events: list[ChangeEvent]) -> None: ...

    with pytest.raises(TypeError, match=r"wrong\(events, more\) is not a handler: its parameters must be"):
        decorate(wrong)
    with pytest.raises(TypeError, match="a handler must be"):
        decorate(3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, got 0"):
        worker.on("orders", consumer="c", batch=0)(right)
    with pytest.raises(ValueError, match="retries must be a whole number of at least 0, got -1"):
        worker.on("orders", consumer="c", retries=-1)(right)
    with pytest.raises(ValueError, match="on_dead must be 'continue' or 'park', got 'stop'"):
        worker.on("orders", consumer="c", on_dead="stop")(right)
    decorate(right)
    with pytest.raises(ValueError, match='has a handler "right" already'):
        decorate(right)
    with pytest.raises(ValueError, match="can't be shared, because a handler has snapshot=True"):
        worker.on("orders", consumer="c", snapshot=True, name="other")(right)


def test_a_worker_that_may_not_run_says_so_at_its_start(shared_dsn: str, schema: str) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name)(recorder())
        worker.declare()
        with store.transaction() as tx:
            tx.connection.execute("ALTER TABLE pgdoc.handlers RENAME COLUMN place TO moved")
        try:
            with pytest.raises(DatabaseError, match="place"):
                worker.run()
        finally:
            with store.transaction() as tx:
                tx.connection.execute("ALTER TABLE pgdoc.handlers RENAME COLUMN moved TO place")


def test_a_position_that_a_failover_has_undone_is_not_passed_over(
    shared_dsn: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name, name="one")(recorder())
        worker.on("orders", consumer=name, name="two")(recorder("others"))
        worker.declare()
        with running(worker):
            store["orders"].insert("a", {})
            count(store, "effects", 1)
            with store.transaction() as tx:  # as the server that was promoted has it
                tx.connection.execute(
                    "UPDATE pgdoc.handlers SET place = '{1}' WHERE consumer = %s AND handler = 'one'", [name]
                )
            store["orders"].insert("b", {})
            count(store, "others", 2)
            count(store, "effects", 2)
    assert f'consumer "{name}" of the worker is not open, and is tried again: ConsumerLost' in caplog.text


def test_a_dead_letter_that_is_tried_again_has_the_numbers_of_its_store(shared_dsn: str, schema: str) -> None:
    seen: list[Any] = []
    with (
        opened(shared_dsn, schema) as plain,
        Store(shared_dsn, schema=schema, decimals=True) as store,
    ):
        worker, name = Worker(store), fresh_name()

        @worker.on("orders", consumer=name, retries=0)
        def see(event: ChangeEvent) -> None:
            assert event.full_document is not None
            seen.append(event.full_document.data["price"])
            if len(seen) < 2:
                raise RuntimeError

        def is_dead() -> bool:
            return [each.state for each in plain.dead_letters(consumer=name)] == ["dead"]

        def is_done() -> bool:
            return plain.dead_letters(consumer=name) == []

        worker.declare()
        store["orders"].insert("a", {"price": Decimal("1.10")})
        with running(worker):
            until(is_dead)
            plain.retry_dead_letters(consumer=name)
            until(is_done)
    assert [(type(each), str(each)) for each in seen] == [(Decimal, "1.10")] * 2


def test_an_event_of_a_row_with_a_long_key_becomes_a_dead_letter(shared_dsn: str, schema: str) -> None:
    """Its key fits into the index of its table, and not into that of dead letters, which has more columns."""
    key = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=2600))
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        table = f"public.keys_of_{name}"
        worker.on(table, consumer=name, retries=0, on_dead="park", name="h" * 200)(recorder(bad={key}))
        with store.transaction() as tx:
            tx.connection.execute(f"CREATE TABLE {table} (k text PRIMARY KEY, n int)".encode())
        store.add_table(table)
        worker.declare()
        with store.transaction() as tx:
            tx.connection.execute(f"INSERT INTO {table} VALUES (%s, 1)".encode(), [key])
            tx.connection.execute(f"UPDATE {table} SET n = 2".encode())

        def are_stored() -> bool:
            return [each.state for each in store.dead_letters(consumer=name)] == ["dead", "parked"]

        with running(worker):
            until(are_stored)
            letters = store.dead_letters(consumer=name)
        assert [each.event.document_id for each in letters if each.event is not None] == [key] * 2
        store.remove_table(table)
        with store.transaction() as tx:
            tx.connection.execute(f"DROP TABLE {table}".encode())
