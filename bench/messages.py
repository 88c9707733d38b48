"""Replication messages that are the same on every machine: transactions of ten inserts and of ten updates in turn.

They have the form in which PostgreSQL sends a collection's changes, through wal2json and through pgoutput. No two of
them are equal, so that nothing is faster because it was seen before. A document has about 200 bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A_TRANSACTION = 10
SCHEMA, TABLE, OID = "docs", "orders", 16_384
TYPES = {"id": 25, "data": 3802, "version": 20, "replaced_version": 20, "created_at": 1184, "updated_at": 1184}

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST = datetime(2026, 11, 29, 7, 8, 51, 817473, tzinfo=UTC)
_FIRST_LSN = 0x1_6B37_4D30

Image = dict[str, Any]


def wal2json(count: int) -> list[bytes]:
    """Return the frames of `count` changes."""
    return list(_frames(count, _wal2json_edge, _wal2json_row))


def pgoutput(count: int) -> list[bytes]:
    """Return the frames of the same changes."""
    return [_frame(0, _relation()), *_frames(count, _pgoutput_edge, _pgoutput_row)]


FRAMES: dict[str, Callable[[int], list[bytes]]] = {"wal2json": wal2json, "pgoutput": pgoutput}


def _frames(
    count: int, edge: Callable[[str, int, int], bytes], row: Callable[[int, int, Image, Image | None], bytes]
) -> Iterator[bytes]:
    for start in range(0, count, A_TRANSACTION):
        number = start // A_TRANSACTION
        begins, commits = _lsn(start), _lsn(start + A_TRANSACTION) - 100
        yield _frame(begins, edge("B", number, commits))
        for n in range(start, min(start + A_TRANSACTION, count)):
            old = _image(n, 1, _time(number - 7), _time(number - 7)) if number % 2 else None
            new = _image(n, 2, _time(number - 7), _time(number)) if old else _image(n, 1, _time(number), _time(number))
            yield _frame(_lsn(n), row(number, _lsn(n), new, old))
        yield _frame(commits + 48, edge("C", number, commits))


def _lsn(n: int) -> int:
    return _FIRST_LSN + 1_000 * n


def _time(number: int) -> str:
    return (_FIRST + timedelta(microseconds=1_234_567 * number)).isoformat(" ")[:-3]


def _image(n: int, version: int, created_at: str, updated_at: str) -> Image:
    data = {  # in the order of jsonb
        "note": 'Leave it at the "back" door, please; ring twice.',
        "items": [n, n + 1],
        "total": n + 1.25,
        "status": "new" if version == 1 else "paid",
        "customer": {"city": "Reykjavík", "name": hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest()},
    }
    return {
        "id": f"d-{n:06}",
        "data": json.dumps(data, ensure_ascii=False),
        "version": version,
        "replaced_version": 1,
        "created_at": created_at,
        "updated_at": updated_at,
    }


def _frame(lsn: int, payload: bytes) -> bytes:
    return b"w" + struct.pack(">QQq", lsn, lsn, 0) + payload


def _lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _wal2json_edge(action: str, number: int, commits: int) -> bytes:
    head = {"action": action, "xid": 700 + number, "timestamp": _time(number)}
    return orjson.dumps({**head, "lsn": _lsn_text(commits), "nextlsn": _lsn_text(commits + 48)})


def _wal2json_row(number: int, lsn: int, new: Image, old: Image | None) -> bytes:
    message = {
        "action": "U" if old else "I",
        "xid": 700 + number,
        "timestamp": _time(number),
        "lsn": _lsn_text(lsn),
        "schema": SCHEMA,
        "table": TABLE,
        "columns": _columns(new),
    }
    return orjson.dumps({**message, "identity": _columns(old)} if old else message)


def _columns(image: Image) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in image.items()]


def _pgoutput_edge(action: str, number: int, commits: int) -> bytes:
    time_us = (datetime.fromisoformat(_time(number)) - _EPOCH) // timedelta(microseconds=1)
    if action == "B":
        return b"B" + struct.pack(">QqI", commits, time_us, 700 + number)
    return b"C\0" + struct.pack(">QQq", commits, commits + 48, time_us)


def _pgoutput_row(_number: int, _lsn: int, new: Image, old: Image | None) -> bytes:
    head = struct.pack(">cI", b"U" if old else b"I", OID)
    return head + (b"O" + _tuple(old) if old else b"") + b"N" + _tuple(new)


def _tuple(image: Image) -> bytes:
    texts = [str(value).encode() for value in image.values()]
    return struct.pack(">H", len(texts)) + b"".join(b"t" + struct.pack(">I", len(text)) + text for text in texts)


def _relation() -> bytes:
    columns = b"".join(b"\1" + name.encode() + b"\0" + struct.pack(">Ii", type_, -1) for name, type_ in TYPES.items())
    names = SCHEMA.encode() + b"\0" + TABLE.encode() + b"\0"
    return struct.pack(">cI", b"R", OID) + names + b"f" + struct.pack(">H", len(TYPES)) + columns
