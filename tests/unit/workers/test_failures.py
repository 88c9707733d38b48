"""What an exception says, and how a batch is taken apart."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.errors import (
    DatabaseError,
    InvalidDocument,
    PoolExhausted,
    SerializationFailure,
    ServerUnreachable,
    TransactionLost,
)
from pgdoc.runtime.activities import Activity
from pgdoc.workers.failures import halves, is_loss, is_outage, met_conflict, named, text_of, traceback_of


def test_only_what_met_another_transaction_is_a_conflict() -> None:
    assert met_conflict(SerializationFailure("so", sqlstate="40001"))
    assert met_conflict(psycopg.errors.DeadlockDetected())
    assert not met_conflict(TransactionLost("gone"))
    assert not met_conflict(ValueError("40001"))


def test_a_server_that_takes_nothing_is_no_failure_of_the_event() -> None:
    assert is_loss(ServerUnreachable("gone"))
    assert is_loss(psycopg.OperationalError("gone"))
    assert is_outage(PoolExhausted("full", holders=()))
    assert is_outage(psycopg.errors.DiskFull())
    assert is_outage(DatabaseError("full", sqlstate="53100"))
    assert not is_outage(DatabaseError("a wrong value", sqlstate="22023"))
    assert not is_outage(TimeoutError())
    assert not is_loss(TimeoutError())


@given(st.integers(2, 50), st.data())
def test_the_parts_of_a_batch_are_the_batch_in_order(count: int, data: st.DataObject) -> None:
    events: list[Any] = [object() for _ in range(count)]
    failed = data.draw(st.none() | st.sampled_from(events))
    parts = halves(events, failed)
    assert list(itertools.chain(*parts)) == events
    assert all(0 < len(part) < count for part in parts)
    assert failed is None or [failed] in parts


def test_an_error_is_stored_as_the_text_that_postgresql_takes() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert text_of(ValueError("a\0b \ud800")) == "ValueError: a\\x00b \\ud800"
    assert text_of(KeyError()) == "KeyError"
    assert text_of(InvalidDocument("no")) == "pgdoc.InvalidDocument: no"
    assert text_of(OddError()).endswith("OddError: (its text can't be printed)")
    assert len(text_of(ValueError("x" * 100_000))) == 10_000


@pytest.mark.parametrize("message", ["plain", "nul \0 in it"])
def test_the_traceback_ends_with_the_error(message: str) -> None:
    with pytest.raises(ValueError, match=r"plain|nul") as raised:
        raise ValueError(message)
    assert traceback_of(raised.value).rstrip().endswith(message.replace("\0", "\\x00"))


def test_an_id_that_a_writer_chose_forges_no_line_of_a_log() -> None:
    event: Any = SimpleNamespace(event_type="insert", collection="orders", resume_token=SimpleNamespace(lsn="0/1"))
    event.document_id = "a"
    assert named([event, event]) == "insert of orders/a at 0/1 and 1 more"
    event.document_id = "a\nERROR forged\x1b[2J"
    assert named([event]) == "insert of 'orders/a\\nERROR forged\\x1b[2J' at 0/1"
    event.document_id = "a" * 1000
    assert len(named([event])) < 200


def test_the_traceback_begins_at_the_handler() -> None:
    def handler() -> None:
        raise ValueError("no")

    activity = Activity("test-handler", handler)
    assert activity.wait(20)
    assert activity.error is not None
    first, where, *_ = traceback_of(activity.error).splitlines()
    assert first == "Traceback (most recent call last):"
    assert where.endswith("in handler")
