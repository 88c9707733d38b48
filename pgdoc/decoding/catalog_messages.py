"""Logical messages by which the catalog reports created, renamed and dropped collections."""

from __future__ import annotations

import orjson

from pgdoc.decoding.records import CollectionChange, Message

_PREFIX = '{"collection":'
"""What the catalog's functions begin such a message with; a test for it is all that other messages cost."""


_KINDS = ("create", "rename", "drop")


def read_message(message: Message) -> tuple[str, CollectionChange] | None:
    """Give the schema, and what became of a collection of it; `None` where the message is of another form."""
    content = message.content
    if content is None or not content.startswith(_PREFIX):
        return None
    try:
        said = orjson.loads(content)["collection"]
        schema, kind, table = said["schema"], said["event"], said["name"]
        renamed_to, left = said.get("renamed_to"), said.get("left")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if kind not in _KINDS or not (_is_name(schema) and _is_name(table)) or _is_name(renamed_to) != (kind == "rename"):
        return None
    told = frozenset(left) if isinstance(left, list) and all(map(_is_name, left)) else None
    return schema, CollectionChange(
        message.lsn, kind, table, content.encode(), renamed_to=renamed_to if kind == "rename" else None, remaining=told
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""
