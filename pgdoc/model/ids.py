"""Document ids: validation and generation."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final

from pgdoc.errors import InvalidDocument
from pgdoc.model.short_repr import short_repr

__all__ = ["MAX_ID_BYTES", "check_id", "new_id"]

MAX_ID_BYTES: Final = 1024


def check_id(document_id: Any) -> str:
    """Return the id, if it is one: non-empty text of at most 1,024 bytes without NUL.

    Raises:
        InvalidDocument: it is not one; `path` is `_id`.
    """
    if not isinstance(document_id, str):
        raise InvalidDocument(
            f"the id {short_repr(document_id)} is of type {type(document_id).__name__}: give text", path="_id"
        )
    if not document_id or "\0" in document_id:
        raise InvalidDocument(
            f"{short_repr(document_id)} is no id: give text that is not empty, without NUL", path="_id"
        )
    try:
        size = len(document_id) if document_id.isascii() else len(document_id.encode())
    except UnicodeEncodeError as exc:
        raise InvalidDocument(
            f"the id {short_repr(document_id)} has a lone surrogate, which is no character", path="_id"
        ) from exc
    if size > MAX_ID_BYTES:
        raise InvalidDocument(
            f"the id {document_id[:40]!r}... has {size:,} bytes: {MAX_ID_BYTES:,} at most", path="_id"
        )
    return document_id if type(document_id) is str else str.__str__(document_id)


class _Clock:
    """Times in 4,096ths of a millisecond that only go up, whatever the system's clock does."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def tick(self) -> int:
        now = time.time_ns() * 4096 // 1_000_000
        with self._lock:
            self._last = max(now, self._last + 1)
            return self._last


_clock = _Clock()


def new_id() -> str:
    """Make an id: a UUIDv7 (RFC 9562, method 3) as text. Ids of one process sort in the order they were made."""
    milliseconds, fraction = divmod(_clock.tick(), 4096)
    rest = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    tail = f"{rest:016x}"
    head = f"{milliseconds:012x}"
    return f"{head[:8]}-{head[8:]}-7{fraction:03x}-{tail[:4]}-{tail[4:]}"
