"""A consistent copy of a bookmark is made without waiting for transactions, once those that count have ended."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc.replication import slots
from pgdoc.replication.connection import connect
from pgdoc.streams.consistency import ConsistentCopy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("any_plugin")


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with contextlib.closing(connect(dsn, replication=False)) as plain:
        yield plain
        for bookmark in slots.bookmarks(plain, lost=True):
            slots.drop_slot_if_free(plain, bookmark.name)


@pytest.fixture
def bookmark(connection: psycopg.Connection[Any]) -> str:
    name = slots.bookmark_name(connection)
    slots.create_bookmark(connection, name)
    return name


@contextlib.contextmanager
def open_transaction(dsn: str) -> Iterator[None]:
    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_current_xact_id()")
        yield


def test_a_copy_waits_for_what_ran_at_the_first_record_and_then_for_what_ran_at_the_second(
    dsn: str, connection: psycopg.Connection[Any], bookmark: str
) -> None:
    copy = ConsistentCopy()
    with contextlib.ExitStack() as second:
        with open_transaction(dsn):
            assert [copy.make(connection, [bookmark]) for _ in range(3)] == [False] * 3
            second.enter_context(open_transaction(dsn))
        assert [copy.make(connection, [bookmark]) for _ in range(3)] == [False] * 3
        third = second.pop_all()
        with open_transaction(dsn):  # of which the third record is the first one
            third.close()
            before = slots.flushed(connection)
            assert copy.make(connection, [bookmark])
    original, made = slots.bookmarks(connection)
    assert (original.name, original.is_synchronizable, made.is_synchronizable) == (bookmark, False, True)
    assert made.restart is not None
    assert made.restart < before < made.confirmed, "the records lie in between"
    assert made.made_at >= original.made_at


def test_without_transactions_the_copy_is_made_at_once(connection: psycopg.Connection[Any], bookmark: str) -> None:
    copy = ConsistentCopy()
    assert not copy.make(connection, [])
    assert copy.make(connection, ["pgdocb_1_1_a", bookmark])
    assert [each.is_synchronizable for each in slots.bookmarks(connection)] == [False, True]


def test_a_bookmark_that_is_dropped_meanwhile_is_left_out(
    dsn: str, connection: psycopg.Connection[Any], bookmark: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy = ConsistentCopy()
    with open_transaction(dsn):
        assert not copy.make(connection, [bookmark])
    slots.drop_slot_if_free(connection, bookmark)
    with caplog.at_level("INFO", "pgdoc.history"):
        assert not copy.make(connection, [bookmark])
    assert f'bookmark "{bookmark}" was not copied for the standbys' in caplog.text
    assert slots.bookmarks(connection) == []
