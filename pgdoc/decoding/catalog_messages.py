"""Decodes the logical messages that report created, renamed and dropped collections."""

from __future__ import annotations

import orjson

from pgdoc.decoding.records import CollectionChange, Message

_PREFIX = '{"collection":'
"""How the catalog's functions start such a message. Other messages cost no more than this test."""

_KINDS = ("create", "rename", "drop")


def read_message(message: Message) -> tuple[str, CollectionChange] | None:
    """Return the schema and the change, or `None` if the message has another form."""
    content = message.content
    if content is None or not content.startswith(_PREFIX):
        return None
    try:
        fields = orjson.loads(content)["collection"]
        schema, kind, table = fields["schema"], fields["event"], fields["name"]
        renamed_to, left = fields.get("renamed_to"), fields.get("left")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if kind not in _KINDS or not (_is_name(schema) and _is_name(table)) or _is_name(renamed_to) != (kind == "rename"):
        return None
    remaining = frozenset(left) if isinstance(left, list) and all(map(_is_name, left)) else None
    return schema, CollectionChange(
        message.lsn,
        kind,
        table,
        content.encode(),
        renamed_to=renamed_to if kind == "rename" else None,
        detail=remaining,
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""
