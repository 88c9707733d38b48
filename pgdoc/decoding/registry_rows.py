"""Decodes changes of the table `pgdoc.registry`, which has a row for each name that a collection has or had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pgdoc.decoding.frames import PAYLOAD
from pgdoc.decoding.records import RegistryRow, Span, TableColumn, TableShape
from pgdoc.decoding.row_json import TEXTS, json_of_value
from pgdoc.errors import InvalidResumeToken, ProtocolError
from pgdoc.model.positions import Lsn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc.decoding.records import Images

REGISTRY = ("pgdoc", "registry")
"""Its schema and name."""


def read_registry_row(lsn: int, kind: str, images: Images, frame: bytes) -> RegistryRow:
    """Return the row after an INSERT or UPDATE.

    Raises:
        ProtocolError: the table has other columns.
    """
    after, before = images
    try:
        until = _lsn(after["until"])
        return RegistryRow(
            lsn,
            is_new=kind == "I",
            has_closed=kind == "U" and until is not None and before.get("until") is None,
            span=Span(
                int(after["oid"]),
                after["schema_name"],
                after["name"],
                int(Lsn.parse(after["since"])),
                until,
                read_shape(after["key"], after["document"], after["columns"]) if after.get("kind") == "table" else None,
                read_partitions(after.get("partitions")),
            ),
            opened_by=after["opened_by"],
            from_name=after["from_name"],
            closed_by=after["closed_by"],
            exact=after["exact"] in {True, "t"},
            message=frame,
        )
    except (KeyError, TypeError, ValueError, InvalidResumeToken) as exc:
        raise ProtocolError(f"pgdoc.registry has an unreadable row: {exc!r}", offset=PAYLOAD) from exc


def read_shape(key: str, document: str | None, columns: str) -> TableShape:
    """Return the shape from the text of the columns that the registry has for a table."""
    return table_shape_of(orjson.loads(json_of_value(key, TEXTS)), document, columns)


def read_partitions(names: str | None) -> tuple[tuple[int, str], ...]:
    """Return the oids and names of a collection's partitions from the JSON that the registry has for them."""
    return () if names is None else tuple((int(oid), str(name)) for oid, name in orjson.loads(names).items())


def table_shape_of(key: Sequence[str], document: str | None, columns: str) -> TableShape:
    """Return the shape of a table from the JSON of its columns."""
    parsed = (TableColumn(column["name"], column["type"], column["form"]) for column in orjson.loads(columns))
    return TableShape(tuple(key), document, tuple(parsed))


def _lsn(text: Any) -> int | None:
    return None if text is None else int(Lsn.parse(text))
