"""CloudEvents 1.0: an event in the JSON format, and as the headers of the binary content mode.

The data of a CloudEvent is pgdoc's own JSON of the event. Its bytes are copied, so all numbers stay exact.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import orjson

from pgdoc.changes.events import twin_of

if TYPE_CHECKING:
    from pgdoc.changes.events import ChangeEvent

__all__ = ["CONTENT_TYPE", "binary_headers", "cloudevent_of", "data_of_cloudevent", "trace_context"]

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
_BEGIN: Final = b'{"specversion":"1.0",'
_DATA: Final = b',"data":'

# Writers choose the metadata: only a value as the W3C defines it becomes an attribute, or a header.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE: Final = re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?")


def cloudevent_of(event: ChangeEvent) -> bytes:
    """Return the event in CloudEvents' JSON format (structured content mode).

    Raises:
        UnreadableDocument: as `event.to_json()`.
    """
    data = event.to_json()
    attributes = {**_attributes(event), "datacontenttype": "application/json", **trace_context(event)}
    return b"%b%b%b}" % (orjson.dumps(attributes)[:-1], _DATA, data)


def data_of_cloudevent(text: bytes) -> bytes | None:
    """Return the data of what `cloudevent_of` returned, byte for byte; `None` for any other text.

    A text that somebody has written anew is refused: its numbers need not be exact any more.
    """
    if not text.startswith(_BEGIN) or not text.endswith(b"}}"):
        return None
    at = text.find(_DATA)  # no attribute has this text: its quotes are escaped there
    return None if at < 0 else text[at + len(_DATA) : -1]


def binary_headers(event: ChangeEvent) -> dict[str, str]:
    """Return the attributes as HTTP headers; the body is then `event.to_json()`, of type application/json."""
    attributes = {**_attributes(event), **trace_context(event)}
    return {f"ce-{name}": _header_value(value) for name, value in attributes.items()}


def trace_context(event: ChangeEvent) -> dict[str, str]:
    """Return the writer's `traceparent`, and its `tracestate`, if the event's metadata has them in W3C's form."""
    metadata = twin_of(event).metadata
    parent, state = metadata.get("traceparent"), metadata.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    if not isinstance(state, str) or not _TRACESTATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _attributes(event: ChangeEvent) -> dict[str, str]:
    token = event.resume_token
    database = "" if token.database_oid is None else f"/{token.database_oid}"
    return {
        "specversion": "1.0",
        "id": str(token),
        "source": f"/pgdoc/{token.system_id}{database}",
        "type": f"io.pgdoc.{event.event_type}",
        "subject": _subject(event.collection, event.document_id),
        "time": event.timestamp.isoformat(),
    }


def _subject(collection: str, document_id: str | None) -> str:
    """Return `collection/id`; percent-encoding keeps what a subject may not have, such as control characters, out."""
    parts = [collection] if document_id is None else [collection, document_id]
    return "/".join(quote(part, safe="", errors="surrogatepass") for part in parts)


def _header_value(text: str) -> str:
    """Percent-encode spaces, quotes, `%` and all that is not printable ASCII, as the HTTP binding has it."""
    return quote(text, safe="!#$&'()*+,/:;<=>?@[\\]^`{|}~")
