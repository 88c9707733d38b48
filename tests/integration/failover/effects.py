"""A consumer whose effect on each document is stored with its checkpoint, opened again after whatever ends it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import psycopg

import pgdoc
from pgdoc import Store
from pgdoc.errors import PgdocError, ServerError

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ChangeStream, Transaction

NAME = "billing"


class Effects:
    """A context manager that runs the consumer in a thread; each event of `orders` becomes a document of `effects`."""

    def __init__(self, conninfo: str, name: str = NAME) -> None:
        self.errors: list[PgdocError] = []
        self.done = 0  # events whose effect is known to be stored
        self._conninfo, self._name = conninfo, name
        self._closing, self._is_open = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tests-effects", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_open.wait(60), self.errors  # a new consumer begins where it is opened
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with Store(self._conninfo) as store:
            while not self._closing.is_set():
                try:
                    with store["orders"].watch(consumer=self._name) as stream:
                        self._is_open.set()
                        self._consume(store, stream)
                except PgdocError as exc:
                    self.errors.append(exc)
                    time.sleep(0.1)

    def _consume(self, store: Store, stream: ChangeStream) -> None:
        while not self._closing.is_set():
            event = stream.next(timeout=0.2)
            if event is not None:
                store.run(partial(self._apply, stream, event), retries=20)
                self.done += 1

    def _apply(self, stream: ChangeStream, event: ChangeEvent, tx: Transaction) -> None:
        tx["effects"].insert(pgdoc.new_id(), {"of": event.document_id, "by": self._name})
        stream.checkpoint(event, tx)


def effects(conninfo: str, name: str = NAME) -> Counter[str]:
    """Count the effects of a consumer by document."""
    with Store(conninfo) as store:
        return Counter(document.data["of"] for document in store["effects"].find({"by": name}))


def orders(conninfo: str) -> set[str]:
    with Store(conninfo) as store:
        return {document.id for document in store["orders"].find()}


def insert(store: Store, *names: str, limit_s: float = 60.0) -> None:
    """Insert documents; repeat what a failover interrupts, unless it is stored already."""
    deadline = time.monotonic() + limit_s
    for name in names:
        while True:
            try:
                store["orders"].insert(name, {})
            except pgdoc.errors.DuplicateDocument:
                break
            except ServerError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                break


def slots(conninfo: str) -> dict[str, Any]:
    """Return whether each permanent logical slot is a failover slot."""
    query = "SELECT slot_name::text, failover FROM pg_replication_slots WHERE NOT temporary AND slot_type = 'logical'"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return dict(connection.execute(query).fetchall())
