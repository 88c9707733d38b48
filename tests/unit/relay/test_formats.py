"""The formats of relays: pgdoc's JSON stays as it is inside each, and other programs can read them."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from pgdoc import ChangeEvent, EventType, InvalidInput
from pgdoc.relay import cloudevents
from pgdoc.relay.debezium import SourceNames
from pgdoc.relay.formats import FORMATS, format_named
from tests.unit.relay.made_events import NUMBERS, TOKEN, document, event, event_json, row

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


def exact(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def parsed(headers: dict[str, str], body: bytes) -> Any:
    return from_http_event(HTTPMessage(headers=headers, body=body), JSONFormat())


@pytest.mark.parametrize("name", ["pgdoc", "cloudevents"])
@pytest.mark.parametrize("kind", list(EventType))
def test_the_json_of_an_event_comes_back_byte_for_byte(name: str, kind: EventType) -> None:
    text = event_json(kind, document_id="o-1", full_document=document())
    encoded = FORMATS[name].encode(ChangeEvent.from_json(text))
    assert FORMATS[name].decode(encoded) == text
    assert encoded == FORMATS[name].encode(ChangeEvent.from_json(text))


def test_a_cloudevent_has_the_attributes_of_its_event() -> None:
    body = FORMATS["cloudevents"].encode(event(document_id="a/b é"))
    found = parsed({"content-type": FORMATS["cloudevents"].content_type}, body)
    assert found.get_specversion() == "1.0"
    assert found.get_id() == TOKEN
    assert found.get_source() == "/pgdoc/7421/16384"
    assert found.get_type() == "io.pgdoc.insert"
    assert found.get_subject() == "orders/a%2Fb%20%C3%A9"
    assert found.get_time().isoformat() == "2026-11-23T03:41:13.403010+00:00"
    assert found.get_datacontenttype() == "application/json"
    assert found.get_data()["full_document"]["id"] == "o-1"
    assert found.get_extension("traceparent") is None


def test_the_binary_mode_has_the_same_attributes_as_headers() -> None:
    each = event(document_id='a/"b" é%', metadata={"traceparent": PARENT, "tracestate": "a=1, b=2"})
    headers = {"content-type": "application/json", **cloudevents.binary_headers(each)}
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    binary = parsed(headers, each.to_json())
    structured = parsed({"content-type": cloudevents.CONTENT_TYPE}, cloudevents.cloudevent_of(each))
    names = ("id", "source", "type", "subject", "time", "datacontenttype")
    for name in names:
        assert getattr(binary, f"get_{name}")() == getattr(structured, f"get_{name}")()
    assert binary.get_data() == structured.get_data()
    for name, value in (("traceparent", PARENT), ("tracestate", "a=1, b=2")):
        assert binary.get_extension(name) == structured.get_extension(name) == value


@given(document_id=texts, key=texts, value=texts)
def test_any_text_makes_a_valid_cloudevent(document_id: str, key: str, value: str) -> None:
    text = event_json(document_id=document_id, metadata={key: value, "traceparent": value})
    encoded = cloudevents.cloudevent_of(ChangeEvent.from_json(text))
    assert parsed({"content-type": cloudevents.CONTENT_TYPE}, encoded).get_data() == json.loads(text)
    assert cloudevents.data_of_cloudevent(encoded) == text


@pytest.mark.parametrize(
    "metadata",
    [
        {"traceparent": "x"},
        {"traceparent": 1},
        {"traceparent": f"{PARENT}\r\nx: y"},
        {"tracestate": "a=1"},
        {"traceparent": None},
    ],
)
def test_what_is_no_trace_context_becomes_no_attribute(metadata: dict[str, Any]) -> None:
    assert cloudevents.trace_context(event(metadata=metadata)) == {}


def test_a_trace_state_that_is_none_is_left_out() -> None:
    found = cloudevents.trace_context(event(metadata={"traceparent": PARENT, "tracestate": "a\r\nb: c"}))
    assert found == {"traceparent": PARENT}


@pytest.mark.parametrize("text", [b"", b"{}", b'{"id":"1"}', b'{"specversion":"1.0","id":"1"}}', event_json()])
def test_a_text_of_another_kind_has_no_event_inside(text: bytes) -> None:
    assert cloudevents.data_of_cloudevent(text) is None


def debezium(each: ChangeEvent) -> Any:
    return exact(format_named("debezium", SourceNames("shop", "app", "store")).encode(each))


def test_an_insert_is_a_create_of_debezium() -> None:
    found = debezium(event())
    source = found.pop("source")
    assert source.pop("version")
    lsn = 0x16B374D7F0
    assert source == {
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1795405273403,
        "ts_us": 1795405273403010,
        "ts_ns": 1795405273403010000,
        "snapshot": "false",
        "db": "app",
        "sequence": f'["{0x16B374D848}","{lsn}"]',
        "schema": "store",
        "table": "orders",
        "txId": 731,
        "lsn": lsn,
        "xmin": None,
    }
    assert found == {
        "before": None,
        "after": {
            "id": "o-1",
            "data": NUMBERS.decode(),
            "version": 1,
            "created_at": "2026-11-23T03:41:13.403010Z",
            "updated_at": "2026-11-23T03:41:14Z",
        },
        "op": "c",
        "ts_ms": 1795405273403,
        "ts_us": 1795405273403010,
        "ts_ns": 1795405273403010000,
    }


@pytest.mark.parametrize(
    ("kind", "before", "after", "operation"),
    [
        ("update", True, True, "u"),
        ("replace", True, True, "u"),
        ("delete", True, False, "d"),
        ("snapshot", False, True, "r"),
    ],
)
def test_each_change_of_a_document_has_its_operation(kind: str, before: bool, after: bool, operation: str) -> None:
    fields: dict[str, Any] = {
        "document_id": "o-1",
        "full_document": document(version=2) if after else None,
        "full_document_before_change": document() if before else None,
        "transaction_id": 0 if kind == "snapshot" else 731,
    }
    found = debezium(event(kind, **fields))
    assert found["op"] == operation
    assert [found["before"] is not None, found["after"] is not None] == [before, after]
    assert found["source"]["snapshot"] == ("true" if kind == "snapshot" else "false")
    assert found["source"]["txId"] == (None if kind == "snapshot" else 731)


def test_the_columns_of_a_table_are_the_columns_of_its_rows() -> None:
    text = b'{"id":7,"total":12345678901234567890.10,"data":"x"}'
    found = debezium(event("insert", "public.orders", document_id="7", full_document=row(text)))
    assert found["after"] == exact(text)
    assert (found["source"]["schema"], found["source"]["table"]) == ("public", "orders")


@pytest.mark.parametrize(("taken", "name"), [(b"", "data"), (b'"data":1,', "_data")])
def test_a_document_in_a_column_is_json_text_beside_the_other_columns(taken: bytes, name: str) -> None:
    columns = orjson.Fragment(b'{%b"n":1.10}' % taken)
    found = debezium(event("insert", "public.orders", document_id="7", full_document=row(NUMBERS), columns=columns))
    assert found["after"] == {**exact(b'{%b"n":1.10}' % taken), name: NUMBERS.decode()}


@pytest.mark.parametrize(
    "value", [b"1" * 5000, b"[" * 3000 + b"]" * 3000, b'{"data":["data",{"data":"\\"}"}]}', b'"\\"data\\":"']
)
def test_any_column_beside_a_document_is_copied(value: bytes) -> None:
    columns = orjson.Fragment(b'{"n":%b, "id" : 1}' % value)
    made = event("insert", "public.orders", document_id="7", full_document=row(b"{}"), columns=columns)
    assert b'"after":{"n":%b, "id" : 1,"data":"{}"}' % value in FORMATS["debezium"].encode(made)


def test_a_truncate_has_no_row() -> None:
    found = debezium(event("truncate"))
    assert found.keys() == {"source", "op", "ts_ms", "ts_us", "ts_ns"}
    assert (found["op"], found["source"]["table"]) == ("t", "orders")


@pytest.mark.parametrize("kind", ["create", "rename", "drop", "schema", "invalidate"])
def test_an_event_without_an_equivalent_is_a_message_with_pgdocs_json(kind: str) -> None:
    text = event_json(kind)
    found = debezium(ChangeEvent.from_json(text))
    assert (found["op"], found["source"]["schema"], found["source"]["table"]) == ("m", "", "")
    assert found["message"]["prefix"] == "pgdoc"
    assert base64.b64decode(found["message"]["content"]) == text


def test_only_three_formats_have_names() -> None:
    assert list(FORMATS) == ["pgdoc", "cloudevents", "debezium"]
    assert FORMATS["debezium"].decode(FORMATS["debezium"].encode(event())) is None
    with pytest.raises(InvalidInput, match="format must be one of pgdoc, cloudevents, debezium, got 'avro'"):
        format_named("avro")
