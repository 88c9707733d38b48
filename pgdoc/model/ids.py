"""Document ids: validation and generation."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final, TypeAlias
from uuid import UUID

from pgdoc.errors import InvalidDocument
from pgdoc.model.short_repr import short_repr

__all__ = ["MAX_ID_BYTES", "DocumentId", "check_id", "new_id"]

DocumentId: TypeAlias = str | UUID
"""What calls take as an id. A UUID is stored as its hyphenated text in lower case."""

MAX_ID_BYTES: Final = 1024


def check_id(document_id: Any) -> str:
    """Return the text of an id if it is valid: not empty, without NUL, of at most 1,024 bytes."""
    if isinstance(document_id, UUID):
        return str(document_id)
    if not isinstance(document_id, str):
        raise InvalidDocument(
            f"the id {short_repr(document_id)} has type {type(document_id).__name__}: use a str, or a UUID", path="_id"
        )
    if not document_id or "\0" in document_id:
        raise InvalidDocument(
            f"{short_repr(document_id)} is not a valid id: use text that is not empty and contains no NUL", path="_id"
        )
    try:
        size = len(document_id) if document_id.isascii() else len(document_id.encode())
    except UnicodeEncodeError as exc:
        raise InvalidDocument(
            f"the id {short_repr(document_id)} contains a lone surrogate, which PostgreSQL can't store", path="_id"
        ) from exc
    if size > MAX_ID_BYTES:
        raise InvalidDocument(
            f"the id {document_id[:40]!r}... must have at most {MAX_ID_BYTES:,} bytes, got {size:,}", path="_id"
        )
    return document_id if type(document_id) is str else str.__str__(document_id)


class _Clock:
    """The time in 4,096ths of a millisecond; it increases even if the system's clock goes back."""

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
    """Return a new id: the text of a UUIDv7 (RFC 9562, method 3).

    Ids of one process sort in the order in which it made them.
    """
    milliseconds, fraction = divmod(_clock.tick(), 4096)
    rest = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    tail = f"{rest:016x}"
    head = f"{milliseconds:012x}"
    return f"{head[:8]}-{head[8:]}-7{fraction:03x}-{tail[:4]}-{tail[4:]}"
