"""The messages inside the COPY of logical replication (PostgreSQL: Streaming Replication Protocol)."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pgdoc.errors import ProtocolError

XLOG_DATA = ord("w")
PRIMARY_KEEPALIVE = b"k"
PAYLOAD = 25
"""Where the plugin's message starts in an XLogData frame."""

_XLOG_START = struct.Struct(">Q")
_KEEPALIVE = struct.Struct(">QQB")
_STATUS = struct.Struct(">cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class PrimaryKeepalive(NamedTuple):
    """The server's word that everything below `wal_end` has been sent."""

    wal_end: int
    reply_requested: bool


def xlog_start(frame: bytes) -> int:
    """Give the LSN in the header of an XLogData frame."""
    try:
        return int(_XLOG_START.unpack_from(frame, 1)[0])
    except struct.error as exc:
        raise ProtocolError(
            f"an XLogData message of {len(frame)} bytes ends inside its header", offset=len(frame)
        ) from exc


def parse_keepalive(frame: bytes) -> PrimaryKeepalive:
    """Read a `k` frame."""
    try:
        wal_end, _, reply = _KEEPALIVE.unpack_from(frame, 1)
    except struct.error as exc:
        raise ProtocolError(f"a keepalive of {len(frame)} bytes is cut short", offset=len(frame)) from exc
    return PrimaryKeepalive(wal_end, bool(reply))


def standby_status_update(*, write: int, flush: int, now: datetime, reply: bool = False) -> bytes:
    """Make the client's report.

    Args:
        write: up to where bytes were received.
        flush: up to where nothing is needed again (`confirmed_flush_lsn` follows it); 0 says nothing about it, and
            then a server that shuts down waits for `write` only.
        now: the client's clock.
        reply: whether the server shall answer at once.
    """
    return _STATUS.pack(b"r", write, flush, 0, (now - _EPOCH) // timedelta(microseconds=1), reply)
