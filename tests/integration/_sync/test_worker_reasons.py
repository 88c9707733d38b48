# Written by .ci/twins.py from tests/integration/_async/test_worker_reasons.py: change that file, and run it.
"""What becomes of letters that fail again, and what a worker says about it."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

from pgdoc import Store, Worker, ServerUnreachable
from pgdoc._sync.lane_rows import NOT_STORED
from tests.integration._sync.workers import count, effects, fresh_name, opened, recorder, running, until

if TYPE_CHECKING:
    import pytest


def test_a_letter_whose_event_could_not_be_stored_keeps_its_first_error(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._sync.worker_consumer.LETTERS_S", 0.05)
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name, retries=0)(recorder(bad={"a"}))
        worker.declare()
        store["orders"].insert("a", {})

        def is_dead() -> bool:
            return [each.state for each in store.dead_letters(consumer=name)] == ["dead"]

        with running(worker):
            until(is_dead)
            (first,) = store.dead_letters(consumer=name)
            with store.transaction() as tx:
                tx.connection.execute("UPDATE pgdoc.dead_letters SET event = NULL WHERE id = %s", [first.id])
            for _ in range(2):
                store.retry_dead_letters(consumer=name)
                until(is_dead)
        (letter,) = store.dead_letters(consumer=name)
        assert letter.error == f"RuntimeError: no a\npgdoc.InvalidEvent: {NOT_STORED}"
        assert (letter.traceback, letter.attempts, letter.tried_at) == (first.traceback, 1, first.tried_at)


def test_an_outage_is_a_warning_once(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch, attempts = Store.watch, itertools.count()

    def failing(store: Store, *names: str, **options: Any) -> Any:
        if next(attempts) < 4:
            raise ServerUnreachable("away")
        return watch(store, *names, **options)

    monkeypatch.setattr(Store, "watch", failing)
    monkeypatch.setattr("pgdoc._sync.worker_consumer.FIRST_DELAY_S", 0.01)
    caplog.set_level(logging.INFO, "pgdoc.worker")
    with opened(shared_dsn, schema) as store:
        worker, name = Worker(store), fresh_name()
        worker.on("orders", consumer=name)(recorder())
        worker.declare()
        store["orders"].insert("a", {})
        with running(worker):
            count(store, "effects", 1)
        assert effects(store) == ["a"]
    said = [each.levelno for each in caplog.records if "ServerUnreachable: away" in each.getMessage()]
    assert said == [logging.WARNING, *[logging.INFO] * 3]


def test_what_waits_behind_an_event_of_the_collection_waits_as_long_as_that(
    shared_dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shared_dsn, schema) as store:
        monkeypatch.setattr("pgdoc._sync.worker_consumer.LETTERS_S", 0.05)
        worker, name, bad = Worker(store), fresh_name(), {"a"}
        worker.on("orders", consumer=name, retries=0, on_dead="park")(recorder(bad=bad))
        worker.declare()
        store["orders"].insert("a", {})
        with store.transaction() as tx:
            tx.connection.execute(f"TRUNCATE {schema}.orders".encode())
        store["orders"].insert("b", {})

        def has_failed_again() -> bool:
            letters = store.dead_letters(consumer=name)
            return [(each.state, each.attempts) for each in letters] == [("dead", 2), ("parked", 0), ("parked", 0)]

        def all_are_stored() -> bool:
            return len(store.dead_letters(consumer=name)) == 3

        with running(worker):
            until(all_are_stored)
            store.retry_dead_letters(consumer=name)
            until(has_failed_again)
            assert effects(store) == []
            bad.clear()
            store.retry_dead_letters(consumer=name)
            count(store, "effects", 3)
        assert effects(store) == ["a", None, "b"]
