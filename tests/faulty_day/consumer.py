"""A process of a durable consumer, active or standby: `python -m tests.faulty_day.consumer PLAN`.

It shares its notebook with its twin. It writes the notebook before it acknowledges an event, so that the notebook holds
every acknowledged event.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgdoc import Store
from pgdoc.errors import ConsumerLost, DatabaseError, ServerUnreachable
from tests.faulty_day.digest import counts, fact
from tests.faulty_day.notebook import Notebook
from tests.faulty_day.plan import BOOKS, MARKS, SCHEMA, ConsumerPlan, from_argument
from tests.faulty_day.process import is_set, set_up_process

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ChangeStream
    from tests.faulty_day.digest import Fact

logger = logging.getLogger("consumer")

_LOOK_S = 0.5
_RETRY_S = 0.3
_BATCH = 23
_AUDIT = f"INSERT INTO {BOOKS}.audit (consumer, digest) VALUES (%s, %s)"


class ConsumerRun:
    """Reads the stream from one opening until it fails or the test is over."""

    def __init__(self, plan: ConsumerPlan, store: Store, stream: ChangeStream, notebook: Notebook) -> None:
        self._plan, self._store, self._stream, self._notebook = plan, store, stream, notebook
        self._began = False

    def run(self) -> None:
        """Read until the flag `over` is set."""
        while True:
            events = self._next()
            if events:
                self._take(events)
            elif is_set(self._plan.folder, "over"):
                return

    def _next(self) -> list[ChangeEvent]:
        event = self._stream.next(timeout=_LOOK_S)
        events = []
        while event is not None:
            events.append(event)
            alone = self._plan.how == "auto"  # auto_ack acknowledges when the next event is requested
            event = self._stream.try_next() if len(events) < _BATCH and not alone else None
        return events

    def _take(self, events: list[ChangeEvent]) -> None:
        if not self._began:
            self._notebook.begin_life()
            self._began = True
        facts = [fact(event) for event in events if counts(event)]
        done = any(each.collection == MARKS for each in facts)
        if self._plan.how == "checkpoint":
            self._audit(facts, events[-1])
            facts = []
        self._notebook.keep(facts, None, done=done, replica=False)
        if self._plan.how == "ack":
            self._stream.ack(events[-1])

    def _audit(self, facts: list[Fact], last: ChangeEvent) -> None:
        """Commit the audit rows together with the checkpoint."""
        with self._store.transaction() as tx:
            for each in facts:
                tx.connection.execute(_AUDIT, [self._plan.name, each.digest])
            self._stream.checkpoint(last, tx)


def _serve(plan: ConsumerPlan, store: Store, notebook: Notebook) -> None:
    names = (*plan.collections, MARKS) if plan.collections else ()
    while not is_set(plan.folder, "over"):
        try:
            with store.watch(*names, tables=not names, consumer=plan.name, auto_ack=plan.how == "auto") as stream:
                ConsumerRun(plan, store, stream, notebook).run()
        except (ServerUnreachable, ConsumerLost, DatabaseError, psycopg.Error) as exc:  # psycopg: from tx
            logger.info("reopening the stream after %r", exc)
            time.sleep(_RETRY_S)


def main() -> None:
    set_up_process()
    plan = from_argument(ConsumerPlan)
    with (
        Notebook(Path(plan.folder, f"{plan.name}.sqlite")) as notebook,
        Store(plan.conninfo, schema=SCHEMA, pool_size=4) as store,
    ):
        try:
            _serve(plan, store, notebook)
        except BaseException as exc:
            logger.exception("failed")
            notebook.fail(repr(exc))
            raise


if __name__ == "__main__":
    main()
