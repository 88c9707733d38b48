"""Debezium's envelope, as its connector for PostgreSQL writes it through a JSON converter without schemas.

The texts of documents and rows are copied, so all numbers stay exact. An event's bytes depend on nothing but the event:
Debezium's time of processing is the time of the commit here.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from pgdoc.changes.events import twin_of
from pgdoc.model.documents import data_text
from pgdoc.model.json_codec import encode_value
from pgdoc.model.table_names import is_table_name, table_address
from pgdoc.model.table_row import TableRow

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.documents import Document

__all__ = ["UNNAMED", "SourceNames", "envelope_of"]

_OPERATIONS: Final = {"insert": "c", "update": "u", "replace": "u", "delete": "d", "snapshot": "r", "truncate": "t"}
_MESSAGE: Final = "m"
_TOKENS: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+")\s*+:|"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
"""Keys, other strings, and brackets."""
_PREFIX: Final = "pgdoc"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SourceNames(NamedTuple):
    """What an event does not say, and Debezium's `source` has.

    Attributes:
        name: Debezium's `topic.prefix`: the logical name of the source.
        database: the name of the database.
        schema: the schema of the collections.
    """

    name: str = "pgdoc"
    database: str = ""
    schema: str = "docs"


UNNAMED: Final = SourceNames()


def envelope_of(event: ChangeEvent, names: SourceNames = UNNAMED) -> bytes:
    """Return the event as Debezium's envelope.

    A change of a whole collection other than a truncate has no equivalent. It becomes a message of PostgreSQL's WAL:
    `op` is `m`, the prefix is `pgdoc`, and the content is `event.to_json()` in base64. So does an event that an
    application has published, with its topic as the prefix.

    Raises:
        UnreadableDocument: as `event.to_json()`.
    """
    event = twin_of(event)
    operation = _OPERATIONS.get(event.event_type, _MESSAGE)
    if operation == _MESSAGE:
        content = base64.b64encode(event.to_json()).decode()
        head: dict[str, Any] = {}
        tail: dict[str, Any] = {"message": {"prefix": event.topic or _PREFIX, "content": content}}
    elif operation == "t":
        head, tail = {}, {}
    else:
        main = event.full_document or event.full_document_before_change
        head = {
            "before": _row(event, event.full_document_before_change, main),
            "after": _row(event, event.full_document, main),
        }
        tail = {}
    times = _times(event.timestamp)
    return orjson.dumps({**head, "source": _source(event, operation, times, names), "op": operation, **times, **tail})


def _source(event: ChangeEvent, operation: str, times: dict[str, int], names: SourceNames) -> dict[str, Any]:
    token = event.resume_token
    lsn = token.position.lsn or token.position.commit_lsn
    if operation == _MESSAGE:
        schema = table = ""
    elif is_table_name(event.collection):
        schema, table = table_address(event.collection)
    else:
        schema, table = names.schema, event.collection
    return {
        "version": _version(),
        "connector": "postgresql",
        "name": names.name,
        **times,
        "snapshot": "true" if operation == "r" else "false",
        "db": names.database,
        "sequence": f'["{token.position.commit_lsn}","{lsn}"]',
        "schema": schema,
        "table": table,
        "txId": event.transaction_id or None,
        "lsn": lsn,
        "xmin": None,
    }


def _times(moment: datetime) -> dict[str, int]:
    microseconds = (moment - _EPOCH) // _MICROSECOND
    return {"ts_ms": microseconds // 1000, "ts_us": microseconds, "ts_ns": microseconds * 1000}


@lru_cache(maxsize=1)
def _version() -> str:
    return version("pgdoc")


def _row(event: ChangeEvent, document: Document | None, main: Document | None) -> Any:
    """Return the columns of a row: the document is JSON inside a string, as Debezium has `jsonb`."""
    if document is None:
        return None
    if isinstance(document, TableRow):
        return _table_row(event, document, is_main=document is main)
    return {
        "id": document.id,
        "data": _text(data_text(document)),
        "version": document.version,
        "created_at": _zoned(document.created_at),
        "updated_at": _zoned(document.updated_at),
    }


def _table_row(event: ChangeEvent, row: TableRow, *, is_main: bool) -> orjson.Fragment:
    data = _data_of_row(row)
    columns: bytes | str | None = row.columns_text
    if columns is None and is_main and event.columns is not None:  # an event that was read back from JSON
        columns = encode_value(event.columns, "")
    if columns is None:
        return orjson.Fragment(data)
    others = columns.encode() if isinstance(columns, str) else columns
    name = "data"
    taken = _keys_of(others)
    while name in taken:  # the event does not say what the column of the document is called
        name = f"_{name}"
    comma = b"," if taken else b""
    return orjson.Fragment(b"%b%b%b:%b}" % (others.rstrip()[:-1], comma, orjson.dumps(name), orjson.dumps(_text(data))))


def _keys_of(text: bytes) -> set[str]:
    """Return the keys of an object. Its values are not decoded: no parser takes all that PostgreSQL has as JSON."""
    keys: set[str] = set()
    depth = 0
    for token in _TOKENS.finditer(text):
        if token[1] is not None:
            if depth == 1:
                keys.add(orjson.loads(token[1]))
        elif token[0] in b"{[":
            depth += 1
        elif token[0] in b"}]":
            depth -= 1
    return keys


def _data_of_row(row: TableRow) -> bytes | str:
    text: bytes | str | None = row.__dict__.get("_data")
    return encode_value(row.data, "") if text is None else text


def _text(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode()


def _zoned(moment: datetime) -> str:
    """Return a time as Debezium's `ZonedTimestamp`."""
    return moment.isoformat().replace("+00:00", "Z")
