"""`to_json()` returns the same text each time, whatever was read of the event before."""

from __future__ import annotations

import pytest

import pgdoc

DIGITS = "1234567890123456789012345678901234567890.10"


@pytest.mark.parametrize("read", ["metadata", "full_document", "full_document_before_change"])
def test_numbers_stay_exact_when_an_update_is_written_more_than_once(dsn: str, read: str) -> None:
    with pgdoc.Store(dsn) as store:
        orders = store.create_collection("orders")
        orders.insert("o-1", pgdoc.RawJson(f'{{"n": {DIGITS}}}'))
        with orders.watch() as stream:
            orders.update("o-1", {"$set": {"x": 1}})
            event = stream.next(timeout=30)
    assert event is not None
    first = event.to_json()
    getattr(event, read)
    assert [event.to_json() for _ in range(3)] == [first] * 3
