"""After a large frame a reader goes on in a new session, because libpq keeps the memory; nobody notices."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from pgdoc import AsyncStore
from pgdoc.consumers.owned_slot import OwnedSlot
from pgdoc.replication.reader import Reader
from pgdoc.runtime.primitives import async_sleep
from pgdoc.streams import live_reader
from tests.integration._async.streams import take

pytestmark = pytest.mark.usefixtures("both_plugins", "large_frames")

DOCUMENTS = 12
PATIENCE_S = 60.0


@pytest.fixture
def large_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc.replication.reader.LARGE_BYTES", 5_000)


async def write(store: AsyncStore) -> list[str]:
    for number in range(DOCUMENTS):
        await store["orders"].insert(f"o-{number}", {"text": "x" * 10_000 * (number % 3)})
    return [f"o-{number}" for number in range(DOCUMENTS)]


@pytest.fixture
def slow_walsenders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walsender that is decoding notices late that its client is gone."""
    go_on_at, close = OwnedSlot._go_on_at, Reader.close

    def slowly(slot: OwnedSlot, lsn: int) -> None:
        with monkeypatch.context() as slow:
            slow.setattr(Reader, "close", lambda reader: threading.Timer(0.2, close, [reader]).start())
            go_on_at(slot, lsn)

    monkeypatch.setattr(OwnedSlot, "_go_on_at", slowly)


@pytest.mark.usefixtures("slow_walsenders")
async def test_a_consumer_keeps_its_slot(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgdoc")
    async with AsyncStore(dsn) as store, store.watch("orders", consumer="large") as stream:
        ids = await write(store)
        assert [event.document_id for event in await take(stream, DOCUMENTS)] == ids
    async with AsyncStore(dsn) as store:
        assert await store.drop_consumer("large")
    assert "changed while it was being opened" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_stream_needs_no_bookmark(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **options: object) -> None:
        raise AssertionError(options)

    async with AsyncStore(dsn) as store, store.watch("orders") as stream:
        monkeypatch.setattr(live_reader.LiveReader, "_open_at_watermark", refuse)
        slot = store._streams.hub.slot
        ids = await write(store)
        assert [event.document_id for event in await take(stream, DOCUMENTS)] == ids
        deadline = time.monotonic() + PATIENCE_S
        while store._streams.hub.slot == slot:  # the reader moves once it is between two transactions
            assert time.monotonic() < deadline
            await store["orders"].update("o-2", {"$set": {"n": time.monotonic()}})
            assert [event.document_id for event in await take(stream, 1)] == ["o-2"]
            await async_sleep(0.01)
