"""Events for tests, made from their JSON."""

from __future__ import annotations

from typing import Any

import orjson

from pgdoc import ChangeEvent

TOKEN = "16/B374D848.16/B374D7F0.1.0.7421.1.16384"  # noqa: S105
NUMBERS = b'{"n":1.10,"big":12345678901234567890123,"tiny":1e-400,"text":"a \\"b\\" \xc3\xa9"}'


def document(data: bytes = NUMBERS, version: int = 1, document_id: str = "o-1") -> orjson.Fragment:
    times = b'"created_at":"2026-11-23T03:41:13.403010+00:00","updated_at":"2026-11-23T03:41:14+00:00"'
    return orjson.Fragment(b'{"id":%b,"data":%b,"version":%d,%b}' % (orjson.dumps(document_id), data, version, times))


def row(data: bytes, document_id: str = "7") -> orjson.Fragment:
    return orjson.Fragment(b'{"id":%b,"data":%b}' % (orjson.dumps(document_id), data))


def event_json(event_type: str = "insert", collection: str = "orders", **fields: Any) -> bytes:
    """Return the JSON of an event; what is not given is as it is for an insert of `orders/o-1`."""
    is_insert = event_type == "insert"
    found = {
        "event_type": event_type,
        "collection": collection,
        "document_id": "o-1" if is_insert else None,
        "full_document": document() if is_insert else None,
        "full_document_before_change": None,
        "update_description": None,
        "resume_token": TOKEN,
        "timestamp": "2026-11-23T03:41:13.403010+00:00",
        "transaction_id": 731,
        "metadata": {},
        "renamed_to": None,
        **fields,
    }
    return orjson.dumps(found)


def event(event_type: str = "insert", collection: str = "orders", **fields: Any) -> ChangeEvent:
    return ChangeEvent.from_json(event_json(event_type, collection, **fields))


def numbered(number: int, document_id: str | None, collection: str = "orders") -> ChangeEvent:
    """Return an event at a position that grows with the number."""
    token = f"0/{number:X}0.0/{number:X}.1.0.7421.1.16384"
    kind = "truncate" if document_id is None else "insert"
    return event(kind, collection, resume_token=token, document_id=document_id)
