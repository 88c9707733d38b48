# Written by .ci/twins.py from tests/integration/_async/test_dead_letters.py: change that file, and run it.
"""The calls of a store on the dead letters of workers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import InvalidInput
from tests.integration._sync.streams import take

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEN = datetime(2026, 11, 30, tzinfo=UTC)
AT = "0/64.0/5A.0.0.7421.1.16384"


@pytest.fixture
def letters(shared_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of the catalog's owner; all dead letters are deleted at the end."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        yield connection
        connection.execute("DELETE FROM pgdoc.dead_letters")


def put(letters: psycopg.Connection[Any], state: str = "dead", **columns: Any) -> int:
    """Store a letter as a worker does; return its id."""
    values = {
        "consumer": "audit",
        "handler": "notify",
        "state": state,
        "event_type": "insert",
        "collection": "orders",
        "document_id": "o-1",
        "token": AT,
        "error": None if state == "parked" else "ValueError: no",
        "changed_at": WHEN,
        **columns,
    }
    names = ", ".join(values)
    marks = ", ".join(f"%({name})s" for name in values)
    row = letters.execute(
        f"INSERT INTO pgdoc.dead_letters ({names}) VALUES ({marks}) RETURNING id".encode(),
        values,
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_letter_of_a_row_that_cannot_be_read_says_what_is_known(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    put(letters, event_type=None, document_id=None, changed_at=None)
    with Store(shared_dsn, schema=schema) as store:
        (letter,) = store.dead_letters()
    assert (letter.event_type, letter.document_id, letter.changed_at, letter.event) == (None, None, None, None)
    assert (letter.collection, str(letter.token)) == ("orders", AT)


def states(store: Store) -> list[tuple[int, str]]:
    return [(letter.id, letter.state) for letter in store.dead_letters()]


def test_a_letter_has_the_event_as_it_was(shared_dsn: str, schema: str, letters: psycopg.Connection[Any]) -> None:
    with Store(shared_dsn, schema=schema, decimals=True) as store:
        with store["orders"].watch() as stream:
            store["orders"].insert("o-1", {"n": Decimal("1.50"), "é": "\\"})
            (event,) = take(stream)
        text = event.to_json().decode()
        put(letters, event=text, token=str(event.resume_token), attempts=3, tried_at=WHEN, traceback="at ...")
        (letter,) = store.dead_letters()

    assert letter.event_json == text
    assert letter.event is not None
    assert letter.event.to_json().decode() == text
    assert letter.event == event
    assert (letter.token, letter.event_type, letter.document_id) == (event.resume_token, "insert", "o-1")
    assert (letter.error, letter.traceback, letter.attempts) == ("ValueError: no", "at ...", 3)
    assert (letter.consumer, letter.handler, letter.state) == ("audit", "notify", "dead")
    assert (letter.changed_at, letter.tried_at) == (WHEN, WHEN)
    assert letter.stored_at.tzinfo is not None


def test_an_event_that_could_not_be_stored_is_none(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    put(letters)
    with Store(shared_dsn, schema=schema) as store:
        (letter,) = store.dead_letters()

    assert letter.event is None
    assert str(letter.token) == AT


def test_letters_are_listed_in_order_by_what_they_are_about(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    one = put(letters)
    two = put(letters, "parked", consumer="billing")
    three = put(letters, "due", handler="charge", collection="users", document_id=None)
    with Store(shared_dsn, schema=schema) as store:

        def found(**filters: Any) -> list[int]:
            return [letter.id for letter in store.dead_letters(**filters)]

        assert found() == [one, two, three]
        assert found(after=one) == [two, three]
        assert found(limit=2) == [one, two]
        assert found(consumer="audit") == [one, three]
        assert found(handler="charge") == found(state="due") == found(collection="users") == [three]
        assert found(document_id="o-1", state="parked") == [two]
        assert found(consumer="nobody") == []


def test_a_letter_that_is_retried_frees_those_behind_it_up_to_the_next_dead_one(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    dead, behind = put(letters), put(letters, "parked")
    other, behind_other = put(letters, document_id="o-2"), put(letters, "parked", document_id="o-2")
    next_dead, behind_both = put(letters), put(letters, "parked")
    with Store(shared_dsn, schema=schema) as store:
        assert store.retry_dead_letters(dead, behind, 0) == 1
        assert states(store) == [
            (dead, "due"),
            (behind, "due"),
            (other, "dead"),
            (behind_other, "parked"),
            (next_dead, "dead"),
            (behind_both, "parked"),
        ]
        assert store.retry_dead_letters(dead) == 0
        assert store.retry_dead_letters(handler="notify", document_id="o-2") == 1
        assert store.retry_dead_letters(everything=True) == 1
        assert {state for _, state in states(store)} == {"due"}


def test_a_letter_that_is_dropped_frees_those_behind_it(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    whole, behind = put(letters, document_id=None), put(letters, "parked")
    second, elsewhere = put(letters, document_id="o-2"), put(letters, "parked", handler="charge")
    with Store(shared_dsn, schema=schema) as store:
        assert store.drop_dead_letters(whole, 0) == 1
        assert states(store) == [(behind, "due"), (second, "dead"), (elsewhere, "parked")]
        assert store.drop_dead_letters(consumer="audit", state="dead") == 1
        assert store.drop_dead_letters(consumer="nobody") == 0
        assert store.drop_dead_letters(everything=True) == 2
        assert states(store) == []


@pytest.mark.parametrize(
    ("ids", "filters", "message"),
    [
        ((), {}, "pass the ids of dead letters, or filters such as consumer=, or everything=True: got none"),
        ((1,), {"consumer": "audit"}, "got several"),
        ((), {"everything": True, "handler": "notify"}, "got several"),
        (("1",), {}, "the id of a dead letter must be a number, got '1'"),
        ((1 << 63,), {}, "the id of a dead letter must be a number"),
        ((), {"consumer": 1}, "consumer must be text, got 1"),
        ((), {"everything": 1}, "got none"),
    ],
)
def test_what_to_change_has_to_be_said(
    shared_dsn: str, schema: str, ids: tuple[Any, ...], filters: dict[str, Any], message: str
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        for change in (store.retry_dead_letters, store.drop_dead_letters):
            with pytest.raises(InvalidInput, match=message):
                change(*ids, **filters)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"state": "alive"}, "state must be one of dead, parked, due, got 'alive'"),
        ({"limit": 0}, "limit must be a number of at least 1, got 0"),
        ({"limit": True}, "limit must be a number of at least 1, got True"),
        ({"after": "1"}, "after must be the id of a dead letter, got '1'"),
        ({"handler": "\0"}, "handler must be text"),
    ],
)
def test_a_filter_of_letters_has_to_be_valid(
    shared_dsn: str, schema: str, filters: dict[str, Any], message: str
) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with pytest.raises(InvalidInput, match=message):
            store.dead_letters(**filters)


def test_a_consumer_that_begins_anew_forgets_where_its_handlers_were(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    name = f"anew_{schema}"
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name) as stream:
            store["orders"].insert("o-1", {})
            take(stream)
        beyond = (
            "INSERT INTO pgdoc.handlers (consumer, handler, epoch, holder, place) VALUES (%s, %s, 1, %s, '{9,9,0,0}')"
        )
        for handler in ("notify", "charge"):
            letters.execute(beyond, [name, handler, "00000000-0000-0000-0000-000000000000"])
        with store["orders"].watch(consumer=name) as stream:
            store["orders"].insert("o-2", {})
            take(stream, 2)
        assert letters.execute("SELECT count(*) FROM pgdoc.handlers").fetchone() == (2,)
        store.recreate_consumer(name)
        assert letters.execute("SELECT count(*) FROM pgdoc.handlers").fetchone() == (0,)
        assert store.drop_consumer(name)


def test_a_consumer_that_is_dropped_leaves_its_letters(
    shared_dsn: str, schema: str, letters: psycopg.Connection[Any]
) -> None:
    name = f"gone_{schema}"
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name):
            pass
        put(letters, consumer=name)
        assert store.drop_consumer(name)
        assert [letter.consumer for letter in store.dead_letters()] == [name]


def test_a_store_that_is_closed_lists_nothing(shared_dsn: str, schema: str) -> None:
    store = Store(shared_dsn, schema=schema)
    store.close()
    with pytest.raises(pgdoc.StoreClosed):
        store.dead_letters()
