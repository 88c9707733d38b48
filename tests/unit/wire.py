"""Frames as a walsender sends them with wal2json 2.5 and pgdoc's options, and ways to group them."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import orjson
from hypothesis import strategies as st

from pgdoc.model.positions import Lsn

TIMESTAMP = "2026-11-23 03:41:13.40301+00"


def xlog_data(start: int, payload: bytes) -> bytes:
    return b"w" + struct.pack(">QQq", start, start, 0) + payload


def keepalive(wal_end: int, *, reply_requested: bool = False) -> bytes:
    return b"k" + struct.pack(">QqB", wal_end, 0, reply_requested)


def begin(first_lsn: int, commit_lsn: int, end_lsn: int, *, xid: int = 700) -> bytes:
    return _frame(first_lsn, "B", xid=xid, timestamp=TIMESTAMP, lsn=str(Lsn(commit_lsn)), nextlsn=str(Lsn(end_lsn)))


def commit(commit_lsn: int, end_lsn: int, *, xid: int = 700) -> bytes:
    return _frame(end_lsn, "C", xid=xid, timestamp=TIMESTAMP, lsn=str(Lsn(commit_lsn)), nextlsn=str(Lsn(end_lsn)))


def row(lsn: int, kind: str, table: str, *, new: Any = None, old: Any = None, schema: str = "docs") -> bytes:
    """Make an I, U, D or T from the new and the old row, each a dict from column name to value."""
    images = {"columns": new, "identity": old}
    columns = {name: _columns(image) for name, image in images.items() if image is not None}
    return _frame(lsn, kind, xid=700, timestamp=TIMESTAMP, lsn=str(Lsn(lsn)), schema=schema, table=table, **columns)


def registry_row(lsn: int, name: str, *, kind: str = "create", former: str | None = None) -> bytes:
    """Make the row of the registry that reports a created, renamed or dropped collection."""
    opened = {"oid": 7, "schema_name": "docs", "name": name, "since": str(Lsn(lsn - 2)), "exact": True}
    opened |= {"opened_by": "create" if kind == "drop" else kind, "from_name": former}
    if kind != "drop":
        new = {**opened, "until": None, "closed_by": None}
        return row(lsn, "I", "registry", new=new, schema="pgdoc")
    old = {**opened, "until": None, "closed_by": None}
    new = {**opened, "until": str(Lsn(lsn - 1)), "closed_by": "drop"}
    return row(lsn, "U", "registry", new=new, old=old, schema="pgdoc")


def message(lsn: int, content: str, *, transactional: bool = True) -> bytes:
    xid, timestamp = (700, TIMESTAMP) if transactional else (None, None)
    return _frame(
        lsn,
        "M",
        xid=xid,
        timestamp=timestamp,
        lsn=str(Lsn(lsn)),
        transactional=transactional,
        prefix="pgdoc",
        content=content,
    )


def _frame(start: int, action: str, **fields: Any) -> bytes:
    return xlog_data(start, orjson.dumps({"action": action, **fields}))


def _columns(image: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in image.items()]


@st.composite
def groups(draw: st.DrawFn, items: list[Any]) -> list[list[Any]]:
    """Cut a list into pieces, some of which may be empty."""
    cuts = draw(st.lists(st.integers(0, len(items)), max_size=6).map(sorted))
    return [items[one:other] for one, other in pairwise([0, *cuts, len(items)])]
