"""Names of collections, schemas and consumers, and a collection's table as SQL."""

from __future__ import annotations

import re
from typing import Any

from pgdoc.errors import InvalidName
from pgdoc.model.short_repr import short_repr

__all__ = ["call_channel", "check_consumer", "check_index", "check_name", "quoted", "without_needless_quotes"]

_NAME = re.compile(r"[^\W\d][\w-]*")
_NEEDLESS_QUOTES = re.compile(r'"([a-z_][a-z0-9_]*)"')
_CONSUMER = re.compile(r"[a-z0-9_]{1,40}")
_SYSTEM_SCHEMA = re.compile(r"pgdoc|information_schema|pg_.*")
_LONGEST_BYTES = 63  # PostgreSQL silently truncates longer identifiers (NAMEDATALEN)


def check_name(name: Any, kind: str) -> str:
    """Return the name if it is valid: a letter or `_`, then letters, digits, `_` or `-`; at most 63 bytes."""
    if isinstance(name, type) and kind == "collection":
        raise InvalidName(
            f"{short_repr(name)} is not a valid collection name: pass a text. Models go to "
            "store.collection(name, Model), and to worker.on as model="
        )
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidName(
            f"{short_repr(name)} is not a valid {kind} name: use a letter or _ followed by letters, digits, _ or -"
        )
    if kind == "schema" and _SYSTEM_SCHEMA.fullmatch(name):
        # A later catalog may need the name of a collection in `pgdoc`, and default privileges would reach its tables.
        raise InvalidName(f'schema "{name}" has no collections: name another, or leave it out for "docs"')
    if len(name.encode()) > _LONGEST_BYTES:
        raise InvalidName(
            f"the {kind} name {short_repr(name)} must have at most {_LONGEST_BYTES} bytes, got {len(name.encode())}"
        )
    return name


def check_index(index: Any, owner: str) -> str:
    """Return the index of a store or the like if it is a text; whether that is a name is checked later.

    Args:
        index: what stands in the brackets.
        owner: the name for the object in messages.
    """
    if isinstance(index, str):
        return index
    first = index[0] if isinstance(index, tuple) and index else None
    name = short_repr(first) if isinstance(first, str) else "name"
    raise InvalidName(
        f"{owner}[name] takes the name of a collection, got {short_repr(index)}: for documents of a model, call "
        f"{owner}.collection({name}, Model)"
    )


def check_consumer(name: Any) -> str:
    """Return the name of a consumer, part of a slot's name, if it is valid: 1 to 40 of `a-z`, `0-9` and `_`."""
    if not isinstance(name, str) or _CONSUMER.fullmatch(name) is None:
        raise InvalidName(f"{short_repr(name)} is not a valid consumer name: use 1 to 40 characters of a-z, 0-9 and _")
    return name


def call_channel(consumer: str) -> str:
    """Return the channel on which a consumer's owner listens; see `pgdoc.consumers.calls`."""
    return f"pgdoc_call_{consumer}"


def quoted(schema: str, name: str) -> str:
    """Return a collection's table as SQL. Checked names contain no quotes and no `%` to escape."""
    return f'"{schema}"."{name}"'


def without_needless_quotes(table: str) -> str:
    """Return a quoted table as the text of a regclass, for messages."""
    return _NEEDLESS_QUOTES.sub(r"\1", table)
