"""The law of snapshots: applied in order to nothing, the events give the tables, whatever is written meanwhile.

`python -m tests.snapshots CONNINFO SCHEMA` is a durable consumer that keeps a copy of the collections in the database,
each event together with its checkpoint; it can be killed at any place.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pgdoc
from pgdoc._sync import snapshot_reader
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
    """Have documents changed all the while: inserted, changed, replaced, deleted, and now and then truncated."""
    enough = threading.Event()

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with pgdoc.Store(dsn, schema=schema) as store:
            while not enough.wait(pause_s):
                with contextlib.suppress(pgdoc.DatabaseError), store.transaction() as tx:  # a deadlock, say
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
    """What the events come to."""

    def __init__(self) -> None:
        self.tables: Tables = {}
        self.snapshots = 0

    def apply(self, event: ChangeEvent) -> None:
        """Apply the next one, which has to fit."""
        key = (event.collection, str(event.document_id))
        if event.event_type == "snapshot":
            self.snapshots += 1
            assert key not in self.tables, f"{key} comes twice"
        elif event.event_type in {"insert", "update", "replace", "delete"}:
            assert self.tables.get(key) == event.full_document_before_change, f"{event.event_type} of {key} has a gap"
        if event.full_document is not None:
            self.tables[key] = event.full_document
        else:
            self.tables.pop(key, None)


def tables(store: pgdoc.Store) -> Tables:
    """What is in the collections."""
    return {(name, document.id): document for name in NAMES for document in store[name].find()}


def follow(dsn: str, schema: str, *, opens: int, seed: int) -> None:
    """Open a stream again and again, inside the snapshot and behind it, and compare what it gave with the tables."""
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
    snapshot_reader.CHUNK_DOCUMENTS = PART_DOCUMENTS
    with (
        pgdoc.Store(dsn, schema=schema) as store,
        store.watch(*NAMES, snapshot=True, consumer=CONSUMER, buffer_size=random.choice([5, 10_000])) as stream,
    ):
        for event in stream:
            with store.transaction() as tx:
                _keep(tx, schema, event)
                stream.checkpoint(event, tx)


def _keep(tx: Transaction, schema: str, event: ChangeEvent) -> None:
    run, key = tx.connection.execute, (event.collection, event.document_id)
    found = run(f"SELECT document FROM {schema}_{CONSUMER} WHERE (collection, id) = (%s, %s)".encode(), key).fetchone()
    assert (found and found[0]) == kept(event.full_document_before_change), f"{event.event_type} of {key} has a gap"
    run(f"DELETE FROM {schema}_{CONSUMER} WHERE (collection, id) = (%s, %s)".encode(), key)
    if event.full_document is not None:
        values = (*key, json_codec.encode(kept(event.full_document) or {}).decode())
        run(f"INSERT INTO {schema}_{CONSUMER} VALUES (%s, %s, %s::jsonb)".encode(), values)


def kept(document: Document | None) -> dict[str, Any] | None:
    """A document as the consumer keeps it."""
    return None if document is None else {"version": document.version, "data": document.data}


def read_a_large_one(dsn: str, schema: str, documents: int) -> tuple[float, int]:
    """Read the snapshot of a large collection beside writers; give the seconds, and by how much memory grew."""
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
