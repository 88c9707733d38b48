"""The formats of relays, from the events of a real server: all digits arrive, and pgdoc's JSON comes back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat

import pgdoc
from pgdoc.relay import cloudevents
from pgdoc.relay.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0
DIGITS = "1234567890123456789012345678901234567890.10"


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def take(stream: pgdoc.ChangeStream, count: int) -> list[pgdoc.ChangeEvent]:
    found: list[pgdoc.ChangeEvent] = []
    while len(found) < count:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        found.append(event)
    return found


def exact(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def check_cloudevent(event: pgdoc.ChangeEvent) -> None:
    encoded = FORMATS["cloudevents"].encode(event)
    assert FORMATS["cloudevents"].decode(encoded) == FORMATS["pgdoc"].encode(event)
    found = from_http_event(HTTPMessage({"content-type": cloudevents.CONTENT_TYPE}, encoded), JSONFormat())
    assert found.get_id() == str(event.resume_token)
    assert found.get_type() == f"io.pgdoc.{event.event_type}"


def envelope(event: pgdoc.ChangeEvent) -> Any:
    """Return Debezium's envelope; that of the event that was read back from JSON is the same."""
    encoded = FORMATS["debezium"].encode(event)
    assert FORMATS["debezium"].encode(pgdoc.ChangeEvent.from_json(event.to_json())) == encoded
    return exact(encoded)


def test_the_events_of_a_collection(dsn: str) -> None:
    with pgdoc.Store(dsn) as store:
        orders = store.create_collection("orders")
        orders.insert("first", pgdoc.RawJson(f'{{"n": {DIGITS}}}'))
        with orders.watch(snapshot=True) as stream:
            events = take(stream, 1)
            with pgdoc.metadata(user="é"):
                orders.insert("a/b", pgdoc.RawJson(f'{{"n": {DIGITS}}}'))
            orders.update("a/b", {"$set": {"x": 'é"\\\n'}})
            orders.replace("a/b", {})
            orders.delete("a/b")
            store.rename_collection("orders", "former")
            events += take(stream, 5)
        for event in events:
            check_cloudevent(event)
        found = [envelope(event) for event in events]
        assert [envelope(event) for event in events] == found  # also when an event is sent again and again
        assert DIGITS.encode() in events[2].to_json()
        assert [each["op"] for each in found] == ["r", "c", "u", "u", "d", "m"]
        assert [each["source"]["txId"] is None for each in found] == [True, *[False] * 5]
        assert exact(found[0]["after"]["data"])["n"] == exact(found[1]["after"]["data"])["n"] == Decimal(DIGITS)
        assert exact(found[2]["after"]["data"]) == {"n": Decimal(DIGITS), "x": 'é"\\\n'}
        assert found[2]["before"]["data"] == found[1]["after"]["data"]
        assert [each["after"]["version"] for each in found[1:4]] == [1, 2, 3]
        assert found[4]["before"]["version"] == 3
        sequences = [tuple(map(int, json.loads(each["source"]["sequence"]))) for each in found[1:]]
        assert sequences == sorted(sequences)


def test_the_rows_of_tables(dsn: str, sql: psycopg.Connection[Any]) -> None:
    sql.execute("CREATE TABLE public.plain (id int PRIMARY KEY, total numeric, note text, extra jsonb)")
    sql.execute("CREATE TABLE public.wrapped (id int PRIMARY KEY, total numeric, data text, body jsonb NOT NULL)")
    with pgdoc.Store(dsn) as store:
        store.add_table("public.plain")
        store.add_table("public.wrapped", document="body")
        with store.watch("public.plain", "public.wrapped") as stream:
            sql.execute(f"INSERT INTO plain VALUES (1, {DIGITS}, 'x', '{{\"n\": 1.10}}')")
            sql.execute("UPDATE plain SET note = NULL")
            sql.execute("DELETE FROM plain")
            sql.execute(f"INSERT INTO wrapped VALUES (1, {DIGITS}, 'y', '{{\"n\": {DIGITS}}}')")
            sql.execute("TRUNCATE plain")
            events = take(stream, 5)
    for event in events:
        check_cloudevent(event)
    insert, update, delete, wrapped, truncate = map(envelope, events)
    row = {"id": 1, "total": Decimal(DIGITS), "note": "x", "extra": {"n": Decimal("1.10")}}
    assert (insert["before"], insert["after"]) == (None, row)
    assert (update["before"], update["after"]) == (row, {**row, "note": None})
    assert (delete["before"], delete["after"]) == ({**row, "note": None}, None)
    assert wrapped["after"].keys() == {"id", "total", "data", "_data"}
    assert (wrapped["after"]["total"], wrapped["after"]["data"]) == (Decimal(DIGITS), "y")
    assert exact(wrapped["after"]["_data"]) == {"n": Decimal(DIGITS)}
    assert (truncate["op"], truncate["source"]["schema"], truncate["source"]["table"]) == ("t", "public", "plain")
