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


class _Source:
    """The time in 4,096ths of a millisecond, which increases even if the system's clock goes back, and random bits.

    It draws the bits of many ids at once: `os.urandom` lets go of the GIL, and the thread that reads changes takes it.
    """

    def __init__(self) -> None:
        self._last = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Draw other bits than the parent, whose lock another thread may have held."""
        self._lock = threading.Lock()
        self._drawn, self._used = b"", 0

    def next(self) -> tuple[int, bytes]:
        now = time.time_ns() * 4096 // 1_000_000
        with self._lock:
            self._last = max(now, self._last + 1)
            if self._used == len(self._drawn):
                self._drawn, self._used = os.urandom(_RANDOM_BYTES * _DRAWN_IDS), 0
            self._used += _RANDOM_BYTES
            return self._last, self._drawn[self._used - _RANDOM_BYTES : self._used]


_RANDOM_BYTES: Final = 8
_DRAWN_IDS: Final = 128
_source = _Source()
os.register_at_fork(after_in_child=_source.after_fork)


def new_id() -> str:
    """Return a new id: the text of a UUIDv7 (RFC 9562, method 3).

    Ids of one process sort in the order in which it made them.
    """
    now, drawn = _source.next()
    milliseconds, fraction = divmod(now, 4096)
    tail = f"{int.from_bytes(drawn, 'big') & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000:016x}"
    head = f"{milliseconds:012x}"
    return f"{head[:8]}-{head[8:]}-7{fraction:03x}-{tail[:4]}-{tail[4:]}"
