"""The snapshot law: applied in order to an empty copy, the events give the tables, despite concurrent writes.

`python -m tests.snapshots CONNINFO SCHEMA` runs a durable consumer that keeps a copy of the collections in the
database. It commits each event together with its checkpoint, so it can be killed at any time.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pgdoc
from pgdoc._sync import snapshot_reader as parts
from pgdoc.model import json_codec
from tests.million import resident_kib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, Document, Transaction

NAMES = ("a", "b")
CONSUMER = "copy"
PART_DOCUMENTS = 50
PATIENCE_S = 60.0

Tables = dict[tuple[str, str], "Document"]


@contextlib.contextmanager
def writing(dsn: str, schema: str, *, writers: int, documents: int, pause_s: float = 0.0) -> Iterator[None]:
    """Change documents from several threads while the block runs: upsert, replace, delete and delete many."""
    enough = threading.Event()

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with pgdoc.Store(dsn, schema=schema) as store:
            while not enough.wait(pause_s):
                with contextlib.suppress(pgdoc.DatabaseError), store.transaction() as tx:  # such as a deadlock
                    for _ in range(dice.randint(1, 5)):
                        _write(tx, dice, documents)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def _write(tx: Transaction, dice: random.Random, documents: int) -> None:
    collection, document_id = tx[dice.choice(NAMES)], f"k{dice.randrange(documents * 5 // 4):07d}"
    what = dice.random()
    if what < 0.5:
        collection.update(document_id, {"$inc": {"v": 1}}, upsert=True)
    elif what < 0.7:
        collection.delete(document_id)
    elif what < 0.999:
        collection.replace(document_id, {"v": dice.randrange(99)}, upsert=True)
    elif documents <= 10_000:
        collection.delete_many({"v": {"$gt": 5}})


class Copy:
    """The documents that the events produce."""

    def __init__(self) -> None:
        self.tables: Tables = {}
        self.snapshots = 0

    def apply(self, event: ChangeEvent) -> None:
        """Apply the next event; its before image must be the document held so far."""
        key = (event.collection, str(event.document_id))
        if event.event_type == "snapshot":
            self.snapshots += 1
            assert key not in self.tables, f"{key}: snapshot event for a document that is already there"
        elif event.event_type in {"insert", "update", "replace", "delete"}:
            assert self.tables.get(key) == event.full_document_before_change, (
                f"{event.event_type} of {key}: the before image is not the document held so far"
            )
        if event.full_document is not None:
            self.tables[key] = event.full_document
        else:
            self.tables.pop(key, None)


def tables(store: pgdoc.Store) -> Tables:
    """Return all documents of the collections."""
    return {(name, document.id): document for name in NAMES for document in store[name].find()}


def follow(dsn: str, schema: str, *, opens: int, seed: int) -> None:
    """Open a stream repeatedly, inside and after the snapshot, and compare its events with the tables."""
    dice, copy = random.Random(seed), Copy()
    token: str | None = None
    with pgdoc.Store(dsn, schema=schema) as store:
        with writing(dsn, schema, writers=3, documents=1_500):
            for _ in range(opens):
                size = dice.choice([5, 10_000])
                with store.watch(*NAMES, snapshot=True, resume_after=token, buffer_size=size) as stream:
                    for _ in range(dice.randint(1, 300)):
                        event = stream.next(timeout=0.5)
                        if event is None:
                            break
                        copy.apply(event)
                        token = str(event.resume_token)
                    token = str(stream.resume_token) if dice.random() < 0.5 else token
        with store.watch(*NAMES, snapshot=True, resume_after=token) as stream:
            deadline = time.monotonic() + PATIENCE_S
            while (event := stream.next(timeout=1)) is not None or stream.stats().mode != "live":
                assert time.monotonic() < deadline
                if event is not None:
                    copy.apply(event)
        assert copy.snapshots > 0
        assert copy.tables == tables(store)


CATALOG = f"CREATE TABLE {{schema}}_{CONSUMER} (collection text, id text, document jsonb, PRIMARY KEY (collection, id))"


def main() -> None:
    dsn, schema = sys.argv[1:3]
    parts.PART_DOCUMENTS = PART_DOCUMENTS
    with (
        pgdoc.Store(dsn, schema=schema) as store,
        store.watch(*NAMES, snapshot=True, consumer=CONSUMER, buffer_size=random.choice([5, 10_000])) as stream,
    ):
        for event in stream:
            with store.transaction() as tx:
                _store(tx, schema, event)
                stream.checkpoint(event, tx)


def _store(tx: Transaction, schema: str, event: ChangeEvent) -> None:
    run, key = tx.connection.execute, (event.collection, event.document_id)
    found = run(f"SELECT document FROM {schema}_{CONSUMER} WHERE (collection, id) = (%s, %s)".encode(), key).fetchone()
    assert (found and found[0]) == stored_form(event.full_document_before_change), (
        f"{event.event_type} of {key}: the before image is not the document held so far"
    )
    run(f"DELETE FROM {schema}_{CONSUMER} WHERE (collection, id) = (%s, %s)".encode(), key)
    if event.full_document is not None:
        values = (*key, json_codec.encode(stored_form(event.full_document) or {}).decode())
        run(f"INSERT INTO {schema}_{CONSUMER} VALUES (%s, %s, %s::jsonb)".encode(), values)


def stored_form(document: Document | None) -> dict[str, Any] | None:
    """Return a document in the form that the consumer stores."""
    return None if document is None else {"version": document.version, "data": document.data}


def read_large_snapshot(dsn: str, schema: str, documents: int) -> tuple[float, int]:
    """Read the snapshot of a large collection during writes; return the seconds and the memory growth in KiB."""
    ids = 0
    with pgdoc.Store(dsn, schema=schema) as store, writing(dsn, schema, writers=2, documents=documents, pause_s=0.01):
        before = most = resident_kib()
        began = time.monotonic()
        with store["a"].watch(snapshot=True) as stream:
            for event in stream:
                ids += event.event_type == "snapshot"
                if ids % 5_000 == 0:
                    most = max(most, resident_kib())
                if not event.resume_token.is_inside:
                    break
        return time.monotonic() - began, most - before


if __name__ == "__main__":
    main()
