"""Frames as a walsender sends them with pgoutput and pgdoc's options."""

from __future__ import annotations

import struct
from typing import Any

from tests.unit import wire

SCHEMA = "docs"
COMMITTED_US = 849_000_000_123_456
TYPES = {"id": 25, "data": 3802, "version": 20, "replaced_version": 20, "created_at": 1184, "updated_at": 1184}
UNCHANGED = object()
ORDERS = 16_000


def begin(commit_lsn: int = 20, committed_us: int = COMMITTED_US) -> bytes:
    return wire.xlog_data(10, b"B" + struct.pack(">QqI", commit_lsn, committed_us, 700))


def commit(commit_lsn: int = 20, end_lsn: int = 28) -> bytes:
    return wire.xlog_data(end_lsn, b"C\0" + struct.pack(">QQq", commit_lsn, end_lsn, COMMITTED_US))


def relation(
    number: int = ORDERS,
    name: str = "orders",
    schema: str = SCHEMA,
    types: dict[str, int] = TYPES,
    key: str | None = None,
) -> bytes:
    columns = b"".join(
        bytes([key in (None, column)]) + column.encode() + b"\0" + struct.pack(">Ii", type_, -1)
        for column, type_ in types.items()
    )
    names = schema.encode() + b"\0" + name.encode() + b"\0"
    return wire.xlog_data(0, b"R" + struct.pack(">I", number) + names + b"f" + struct.pack(">H", len(types)) + columns)


def row(kind: str, *, new: Any = None, old: Any = None, mark: bytes = b"O", number: int = ORDERS) -> bytes:
    tuples = (mark + image(old) if old is not None else b"") + (b"N" + image(new) if new is not None else b"")
    return wire.xlog_data(10, kind.encode() + struct.pack(">I", number) + tuples)


def image(values: dict[str, Any]) -> bytes:
    return struct.pack(">H", len(values)) + b"".join(map(value, values.values()))


def value(of: object) -> bytes:
    if of is UNCHANGED:
        return b"u"
    if of is None:
        return b"n"
    text = str(of).encode()
    return b"t" + struct.pack(">I", len(text)) + text


def truncation(*numbers: int) -> bytes:
    return wire.xlog_data(10, b"T" + struct.pack(f">IB{len(numbers)}I", len(numbers), 0, *numbers))


def message(content: bytes, prefix: bytes = b"pgdoc", *, transactional: bool = True) -> bytes:
    head = b"M" + struct.pack(">BQ", transactional, 10) + prefix + b"\0"
    return wire.xlog_data(10, head + struct.pack(">I", len(content)) + content)
