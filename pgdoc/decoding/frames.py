"""The messages of streaming replication, sent as CopyData (PostgreSQL: Streaming Replication Protocol)."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pgdoc.errors import ProtocolError

XLOG_DATA = ord("w")
PRIMARY_KEEPALIVE = b"k"
PAYLOAD = 25
"""The offset of the plugin's message in an XLogData frame."""

LARGE_BYTES = 64 << 20
"""Frames beyond this size are copied by `copy_large`."""

_WAL2JSON_MESSAGE = b'{"action":"M"'
_PGOUTPUT_MESSAGE = b"M" + bytes(9) + b"pgdoc\0"  # nine bytes for flags and LSN
_XLOG_START = struct.Struct(">Q")
_SENT_AT = struct.Struct(">q")
_KEEPALIVE = struct.Struct(">QQB")
_STATUS = struct.Struct(">cQQQqB")
unpack_lsn = _XLOG_START.unpack_from
"""At 1, the LSN in the header of a whole XLogData frame: half the time of `xlog_start`, which checks."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class PrimaryKeepalive(NamedTuple):
    """A keepalive: the server has sent everything below `wal_end`."""

    wal_end: int
    reply_requested: bool


def copy_large(frame: memoryview) -> bytes:
    """Copy a large frame, but of a logical message only what its decoder needs: any role can send one of 1 GB.

    A message of pgdoc keeps no content, and pgoutput's of another prefix becomes one that is ignored.
    """
    head = bytes(frame[: PAYLOAD + len(_PGOUTPUT_MESSAGE)])
    if head.startswith(_WAL2JSON_MESSAGE, PAYLOAD):
        return head[:PAYLOAD] + _WAL2JSON_MESSAGE + b"}"
    if head[PAYLOAD : PAYLOAD + 1] != _PGOUTPUT_MESSAGE[:1]:
        return bytes(frame)
    if head.endswith(_PGOUTPUT_MESSAGE[-6:]):
        return head + bytes(4)  # the size of its content
    return head[:PAYLOAD] + b"O"


def xlog_start(frame: bytes) -> int:
    """Return the LSN in an XLogData header."""
    try:
        return int(_XLOG_START.unpack_from(frame, 1)[0])
    except struct.error as exc:
        raise ProtocolError(
            f"an XLogData message of {len(frame)} bytes is shorter than its header", offset=len(frame)
        ) from exc


def sent_at(frame: bytes) -> str:
    """Return when the server sent an XLogData frame, which is complete, as ISO 8601."""
    return iso_time(_SENT_AT.unpack_from(frame, 17)[0])


def iso_time(microseconds: int) -> str:
    """Return a time that PostgreSQL counts in microseconds since 2000 as ISO 8601."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(" ")


def parse_keepalive(frame: bytes) -> PrimaryKeepalive:
    """Parse a `k` frame."""
    try:
        wal_end, _, reply = _KEEPALIVE.unpack_from(frame, 1)
    except struct.error as exc:
        raise ProtocolError(f"a keepalive of {len(frame)} bytes is incomplete", offset=len(frame)) from exc
    return PrimaryKeepalive(wal_end, bool(reply))


def keepalive_sent_at(frame: bytes) -> float:
    """Return when the server sent a keepalive that was parsed, in seconds since 1970."""
    return float(_SENT_AT.unpack_from(frame, 9)[0]) / 1e6 + _EPOCH.timestamp()


def standby_status_update(*, write: int, flush: int, now: datetime, reply: bool = False) -> bytes:
    """Make a standby status update.

    WAL was received up to `write`, and nothing is needed again up to `flush`, which the slot's `confirmed_flush_lsn`
    follows. With a `flush` of 0, the slot does not move, and a server that shuts down waits for `write` only. `reply`
    asks for a reply at once.
    """
    return _STATUS.pack(b"r", write, flush, 0, (now - _EPOCH) // timedelta(microseconds=1), reply)
