"""Names of watched tables: `schema.name`, without quotes. A collection's name has no dot."""

from __future__ import annotations

from typing import Any, Final

from pgdoc.errors import InvalidInput, InvalidName
from pgdoc.model.short_repr import short_repr
from pgdoc.model.topics import is_topic, topic_of

__all__ = ["check_document_column", "check_table", "is_table_name", "table_address", "titled"]

_MOST_BYTES: Final = 63  # of a name in PostgreSQL


def is_table_name(name: str) -> bool:
    """Whether the name is one of a table, not of a collection."""
    return "." in name


def titled(name: str, schema: str = "") -> str:
    """Return what messages call a collection, with its schema if that is given, a table or a topic."""
    if is_topic(name):
        return f'topic "{topic_of(name)}"'
    if is_table_name(name):
        return f'table "{name}"'
    return f'collection "{schema}.{name}"' if schema else f'collection "{name}"'


def check_table(name: Any) -> str:
    """Return the name if it is that of a table, with its schema."""
    if isinstance(name, str) and is_topic(name):
        raise InvalidName(
            f"{short_repr(name)} is the name of a topic: pass topics=, and rename the schema of a table of this name"
        )
    if not isinstance(name, str) or not all(name.partition(".")):
        raise InvalidName(f"{short_repr(name)} is not the name of a table: give its schema, too, as in 'public.orders'")
    if not all(_is_possible(part) for part in table_address(name)):
        raise InvalidName(f"{short_repr(name)} is not the name of a table: a schema or table has at most 63 bytes")
    return name


def check_document_column(name: Any) -> str | None:
    """Return the name if it can be that of a column, or `None`."""
    if name is not None and not (isinstance(name, str) and name and _is_possible(name)):
        raise InvalidInput(f"document must be the name of a column, got {short_repr(name)}")
    return name


def _is_possible(name: str) -> bool:
    try:
        return len(name.encode()) <= _MOST_BYTES and "\0" not in name
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def table_address(name: str) -> tuple[str, str]:
    """Return the schema and the name of a table. A schema with a dot in its name can't be watched."""
    schema, _, table = name.partition(".")
    return schema, table
