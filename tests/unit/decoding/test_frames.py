from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.decoding.frames import (
    PAYLOAD,
    PrimaryKeepalive,
    copy_large,
    parse_keepalive,
    standby_status_update,
    xlog_start,
)
from pgdoc.decoding.pgoutput import PgOutput
from pgdoc.decoding.records import Message
from pgdoc.decoding.wal2json import Wal2Json
from pgdoc.errors import ProtocolError
from tests.unit import wire

lsns = st.integers(0, 2**64 - 1)


@given(lsns, st.binary(max_size=40))
def test_the_payload_starts_after_the_header_of_xlog_data(start, payload):
    frame = wire.xlog_data(start, payload)
    assert xlog_start(frame) == start
    assert frame[PAYLOAD:] == payload


@given(lsns, st.booleans())
def test_a_keepalive_has_the_end_of_the_wal_and_whether_a_reply_is_requested(wal_end, reply):
    frame = wire.keepalive(wal_end, reply_requested=reply)
    assert parse_keepalive(frame) == PrimaryKeepalive(wal_end, reply)


@pytest.mark.parametrize("size", range(9))
def test_xlog_data_shorter_than_its_header_is_refused(size):
    with pytest.raises(ProtocolError) as raised:
        xlog_start(wire.xlog_data(1, b"")[:size])
    assert raised.value.offset == size


@pytest.mark.parametrize("size", range(18))
def test_an_incomplete_keepalive_is_refused(size):
    with pytest.raises(ProtocolError) as raised:
        parse_keepalive(wire.keepalive(1)[:size])
    assert raised.value.offset == size


def test_a_status_update_has_the_layout_of_the_protocol():
    now = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=1, microseconds=2)
    status = standby_status_update(write=0x0102, flush=0x03, now=now, reply=True)
    written, flushed, applied = bytes(6) + b"\x01\x02", bytes(7) + b"\x03", bytes(8)
    assert status == b"r" + written + flushed + applied + (1_000_002).to_bytes(8, "big") + b"\x01"


@given(lsns, lsns, st.datetimes(timezones=st.just(UTC)))
def test_a_status_update_accepts_every_lsn_and_time(write, flush, now):
    assert len(standby_status_update(write=write, flush=flush, now=now)) == 34


def test_a_large_message_keeps_its_head_only() -> None:
    header = b"w" + bytes(24)
    row, json_row = header + b"I" + bytes(90), header + b'{"action":"I"}' + bytes(90)
    assert [copy_large(memoryview(frame)) for frame in (row, json_row)] == [row, json_row]
    lsn = (7).to_bytes(8)
    ours = header + b"M\1" + lsn + b"pgdoc\0" + (90).to_bytes(4) + bytes(90)
    theirs = header + b"M\1" + lsn + b"pgdocs\0" + (90).to_bytes(4) + bytes(90)
    assert PgOutput("docs").decode([copy_large(memoryview(ours))]) == [Message(0, "")]
    assert PgOutput("docs").decode([copy_large(memoryview(theirs))]) == []
    ours = header + b'{"action":"M","transactional":true,"prefix":"pgdoc","content":"' + bytes(90) + b'"}'
    assert Wal2Json().decode([copy_large(memoryview(ours))]) == [Message(0, None)]
