"""The law of workers: their effects and dead letters are those of a model, whatever fails, is retried or is dropped."""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import pgdoc
from pgdoc._sync import lane, worker_consumer

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("PGDOC_STRESS_EXAMPLES", "30"))
PATIENCE_S = 30.0
_numbers = itertools.count(1)
_DOCUMENTS = st.sampled_from("abcd")
_OPTIONS = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 5),
        "retries": st.integers(0, 2),
        "on_dead": st.sampled_from(["continue", "park"]),
    }
)
_FORMS = st.sampled_from(["tx events", "tx event", "event", "events"])
_OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.lists(_DOCUMENTS, min_size=1, max_size=6)),
    st.tuples(st.just("write"), st.lists(_DOCUMENTS, min_size=1, max_size=6)),
    st.tuples(st.just("truncate"), st.none()),
    st.tuples(st.just("break"), _DOCUMENTS),
    st.tuples(st.just("mend"), _DOCUMENTS),
    st.tuples(st.just("retry"), st.none() | _DOCUMENTS),
    st.tuples(st.just("drop"), _DOCUMENTS),
    st.tuples(st.just("delete"), _DOCUMENTS),
    st.tuples(st.just("restart"), _OPTIONS),
)
Event = tuple[str | None, int]
"""A document and its number; no document for a TRUNCATE."""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "FIRST_DELAY_S", 0.001)
        patch.setattr(lane, "LONGEST_DELAY_S", 0.01)
        for name in ("LETTERS_S", "PARKED_S", "CHECKPOINT_S", "FIRST_DELAY_S", "READ_S"):
            patch.setattr(worker_consumer, name, 0.02)
        yield


@dataclass
class Letter:
    event: Event
    state: str


@dataclass
class Model:
    """What a worker must do; one event at a time."""

    parks: bool
    bad: set[str] = field(default_factory=set)
    effects: list[Event] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        if self.parks and any(conflict(each.event, event) for each in self.letters):
            self.letters.append(Letter(event, "parked"))
        elif event[0] in self.bad:
            self.letters.append(Letter(event, "dead"))
        else:
            self.effects.append(event)

    def settle(self) -> None:
        """Try the letters that are due, in their order."""
        for letter in list(self.letters):
            # What is still there before it is dead, or waits itself.
            is_held = self.parks and any(
                conflict(each.event, letter.event) for each in self.letters[: self._at(letter)]
            )
            if letter.state == "dead" or is_held:
                letter.state = letter.state if letter.state == "dead" else "parked"
            elif letter.event[0] in self.bad:
                letter.state = "dead"
            else:
                self.letters.pop(self._at(letter))
                self.effects.append(letter.event)

    def _at(self, letter: Letter) -> int:
        return next(index for index, each in enumerate(self.letters) if each is letter)


def conflict(one: Event, other: Event) -> bool:
    return one[0] == other[0] or one[0] is None or other[0] is None


class World:
    """A store with a worker that runs beside the test."""

    def __init__(self, dsn: str, schema: str, form: str, options: dict[str, Any]) -> None:
        self._dsn = dsn
        self.store = pgdoc.Store(dsn, schema=schema)
        self.consumer = schema
        self.form = form
        self.options = options
        self.model = Model(options["on_dead"] == "park")
        self.effects: list[Event] = []
        self._count = 0
        self._exists: set[str] = set()
        self.store.create_collection("orders")
        self.store.create_collection("effects")
        self.store.create_consumer(self.consumer, "orders")
        self._start()

    def _start(self) -> None:
        self.worker = pgdoc.Worker(self.store)
        self.worker.on("orders", consumer=self.consumer, name="law", **self.options)(self._handler())
        self._thread = threading.Thread(target=self.worker.run, name="law", daemon=True)
        self._thread.start()

    def _handler(self) -> Any:
        def handle_all(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
            for event in events:
                handle(tx, event)

        def handle(tx: pgdoc.Transaction, event: pgdoc.ChangeEvent) -> None:
            document_id, number = self._effect(event)
            tx["effects"].insert(pgdoc.new_id(), {"of": document_id, "n": number})

        def call(event: pgdoc.ChangeEvent) -> None:
            self.effects.append(self._effect(event))

        def call_all(events: list[pgdoc.ChangeEvent]) -> None:
            self.effects.extend([self._effect(event) for event in events])  # all of a call, or nothing

        return {"tx events": handle_all, "tx event": handle, "event": call, "events": call_all}[self.form]

    def _effect(self, event: pgdoc.ChangeEvent) -> Event:
        if event.document_id in self.model.bad:
            raise ValueError(f"no {event.document_id}")
        if event.full_document is None:
            return event.document_id, 0
        return event.document_id, event.full_document.data["n"]

    def close(self) -> None:
        self.worker.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.store.drop_consumer(self.consumer)
        self.store.drop_dead_letters(consumer=self.consumer)
        self.store.close()

    def write(self, documents: list[str]) -> None:
        events: list[Event] = []
        with self.store.transaction() as tx:
            for each in documents:
                self._count += 1
                events.append((each, self._count))
                if each in self._exists:
                    tx["orders"].update(each, {"$set": {"n": self._count}})
                else:
                    tx["orders"].insert(each, {"n": self._count})
                    self._exists.add(each)
        for event in events:
            self.model.handle(event)

    def truncate(self, _: None) -> None:
        with self.store.transaction() as tx:
            tx.connection.execute(f'TRUNCATE "{self.consumer}".orders'.encode())
        self._exists.clear()
        self.model.handle((None, 0))

    def mend(self, document: str) -> None:
        self.model.bad.discard(document)

    def retry(self, document: str | None) -> None:
        chosen = [each for each in self.model.letters if each.state == "dead" and document in {None, each.event[0]}]
        assert self.store.retry_dead_letters(consumer=self.consumer, document_id=document) == len(chosen)
        for each in chosen:
            each.state = "due"
        self.model.settle()

    def drop(self, document: str) -> None:
        """Drop the dead letters of a document; what waits behind them is due."""
        self.store.drop_dead_letters(consumer=self.consumer, document_id=document, state="dead")
        self._lose(document)

    def delete(self, document: str) -> None:
        """Delete them without telling pgdoc."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(
                "DELETE FROM pgdoc.dead_letters WHERE consumer = %s AND document_id = %s AND state = 'dead'",
                [self.consumer, document],
            )
        self._lose(document)

    def _lose(self, document: str) -> None:
        letters = self.model.letters
        letters[:] = [each for each in letters if each.event[0] != document or each.state != "dead"]
        self.model.settle()

    def restart(self, options: dict[str, Any]) -> None:
        self.worker.stop()
        self._thread.join(60)
        self.options = options
        self.model.parks = options["on_dead"] == "park"
        self._start()
        self.model.settle()

    def check(self) -> None:
        """Wait until the worker is where the model is."""
        model, deadline = self.model, time.monotonic() + PATIENCE_S
        wanted = model.effects, [(each.event[0], each.state) for each in model.letters]
        while (found := self._found()) != wanted:
            assert self._thread.is_alive(), "the worker ended"
            assert time.monotonic() < deadline, f"found {found}, not {wanted}"
            time.sleep(0.02)

    def _found(self) -> tuple[list[Event], list[tuple[str | None, str]]]:
        letters = [(each.document_id, each.state) for each in self.store.dead_letters(consumer=self.consumer)]
        if "tx" not in self.form:
            return list(self.effects), letters
        rows = self.store["effects"].find({}, sort="created_at")
        return [(row.data["of"], row.data["n"]) for row in sorted(rows, key=lambda row: row.id)], letters


@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(form=_FORMS, options=_OPTIONS, operations=st.lists(_OPERATIONS, min_size=3, max_size=14))
def test_effects_and_letters_are_those_of_the_model(
    shared_dsn: str, form: str, options: dict[str, Any], operations: list[tuple[str, Any]]
) -> None:
    world = World(shared_dsn, f"law_{next(_numbers)}", form, options)
    try:
        for name, argument in operations:
            note(f"{name} {argument}")
            if name == "break":
                world.model.bad.add(argument)
            else:
                getattr(world, name)(argument)
            world.check()
        for each in "abcd":
            world.mend(each)
        world.retry(None)
        world.check()
        assert world.model.letters == []
    finally:
        world.close()
