"""A database whose transactions are SERIALIZABLE by default: streams, consumers and snapshots beside writers."""

from __future__ import annotations

import itertools
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import pgdoc
from pgdoc import EventType, Store
from pgdoc.errors import SerializationFailure
from tests.integration.own_server.words import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import ChangeEvent, ChangeStream, Transaction

WRITERS = 4
ROUNDS = 30
KEYS = 8
END = "end"


@pytest.fixture
def serializable_dsn(dsn: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as owner:
        database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        owner.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'serializable'").format(database))
    return dsn


def repeated(call: Callable[[], object]) -> None:
    """Repeat a call that met another transaction, as its error says one can."""
    while True:
        try:
            call()
        except SerializationFailure:
            continue
        return


def write(store: Store, writer: int) -> None:
    dice = random.Random(writer)

    def move(tx: Transaction) -> None:
        a, b = dice.sample(range(KEYS), 2)
        tx["orders"].update(str(a), {"$inc": {"n": 1}}, upsert=True)
        tx["orders"].update(str(b), {"$inc": {"n": -1}}, upsert=True)
        tx["orders"].count({"n": {"$gt": 0}})

    for number in range(ROUNDS):
        store.run(move, retries=1_000)
        repeated(lambda: store["orders"].update(str(dice.randrange(KEYS)), {"$set": {"by": writer}}, upsert=True))
        repeated(lambda: store["orders"].delete(str(dice.randrange(KEYS))))
        with_bulk(store, writer, number)


def with_bulk(store: Store, writer: int, number: int) -> None:
    def call() -> None:
        with store.bulk() as bulk:
            bulk["orders"].replace(f"{writer}-{number}", {"n": number}, upsert=True)
            bulk["orders"].delete(f"{writer}-{number - 3}")

    repeated(call)


def follow(stream: ChangeStream, note: Callable[[ChangeEvent], object] = bool) -> dict[str, Any]:
    """Return the documents that the events leave, up to the last one."""
    documents: dict[str, Any] = {}
    while (event := stream.next(timeout=PATIENCE_S)) is not None:
        assert event.document_id is not None
        note(event)
        if event.document_id == END and event.event_type is not EventType.SNAPSHOT:
            return documents
        documents.pop(event.document_id, None)
        if event.full_document is not None:
            documents[event.document_id] = event.full_document.data
    raise AssertionError("no event came")


def test_every_reader_sees_every_change(serializable_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pgdoc")
    with Store(serializable_dsn) as store, ThreadPoolExecutor(WRITERS + 4) as threads:
        for key in range(KEYS):
            store["orders"].insert(str(key), {"n": 0})
        replayed = itertools.count()

        def checkpointed(stream: ChangeStream, event: ChangeEvent) -> None:
            def effect(tx: Transaction) -> None:
                tx["audit"].insert(pgdoc.new_id(), {})
                stream.checkpoint(event, tx)

            store.run(effect, retries=1_000)
            next(replayed)

        with (
            store["orders"].watch(snapshot=True) as live,
            store["orders"].watch(consumer="acks", snapshot=True) as acks,
            store["orders"].watch(consumer="effects", snapshot=True) as effects,
        ):
            readers = [threads.submit(follow, live), threads.submit(follow, acks)]
            readers.append(threads.submit(follow, effects, lambda event: checkpointed(effects, event)))
            writers = [threads.submit(write, store, writer) for writer in range(WRITERS)]
            with store["orders"].watch(snapshot=True) as late:
                readers.append(threads.submit(follow, late))
                for writer in writers:
                    writer.result()
                store["orders"].insert(END, {})
                found = [reader.result() for reader in readers]
        repeated(lambda: store["orders"].delete(END))
        expected = {document.id: document.data for document in store["orders"].find()}
        assert found == [expected] * 4
        assert store["audit"].count() == next(replayed)
        for name in "acks", "effects":
            assert store.drop_consumer(name)
    assert not caplog.records
