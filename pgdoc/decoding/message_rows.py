"""Decodes rows of the table `pgdoc.messages`: the application's own events.

Each row is inserted and deleted in one transaction. The INSERT is the event; nothing else that happens to the table is
one. Only a role that the catalog's owner has granted INSERT can make one, and a CHECK of the table keeps topics valid.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, Final

import orjson

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.records import Images
from pgdoc.errors import ProtocolError
from pgdoc.model.topics import topic_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MESSAGES", "images_of_message", "pgoutput_name", "read_wal2json_message", "wal2json_name"]

MESSAGES: Final = ("pgdoc", "messages")
"""The schema and name of the table."""

_NO_TOPIC: Final = topic_name("")
"""Of a row without a topic, because the owner has changed the table. Only a stream on all topics gets it."""

_TEXT: Final = ord("t")
_size: Final = struct.Struct(">I").unpack_from
_TOPIC: Final = re.compile(rb'"columns":\[\{"name":"id","value":-?\d+\},\{"name":"topic","value":"([A-Za-z0-9_.-]+)"\}')


def wal2json_name(frame: bytes) -> str:
    """Return the name of the topic of a row that wal2json sent."""
    found = _TOPIC.search(frame, PAYLOAD, PAYLOAD + 512)
    if found is not None:
        return topic_name(found[1].decode())
    topic = _columns_of(frame).get("topic")
    return topic_name(topic) if isinstance(topic, str) else _NO_TOPIC


def pgoutput_name(frame: bytes, at: int, columns: Sequence[tuple[str, int, bool]]) -> str:
    """Return the name of the topic of a row that pgoutput sent; its first value begins at the offset `at`.

    The values after the topic are not looked at: a payload can be large.
    """
    try:
        for name, _, _ in columns:
            if frame[at] != _TEXT:
                at += 1
                continue
            (size,) = _size(frame, at + 1)
            at += 5 + size
            if name == "topic":
                return topic_name(frame[at - size : at].decode(errors="replace"))
    except (IndexError, struct.error) as exc:
        raise ProtocolError("pgoutput sent an incomplete message", offset=len(frame)) from exc
    return _NO_TOPIC


def read_wal2json_message(frame: bytes) -> Images:
    """Decode the key and the payload of a row that wal2json sent."""
    return images_of_message(_columns_of(frame))


def images_of_message(columns: Mapping[str, Any]) -> Images:
    """Return the images of a row: its `id` is the key, its `data` the JSON text of the payload."""
    return Images({"id": columns.get("key"), "data": columns.get("payload") or "null"}, {})


def _columns_of(frame: bytes) -> dict[str, Any]:
    try:
        return {column["name"]: column["value"] for column in orjson.loads(frame[PAYLOAD:])["columns"]}
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise ProtocolError(f"wal2json sent a malformed message: {exc!r}", offset=PAYLOAD) from exc
