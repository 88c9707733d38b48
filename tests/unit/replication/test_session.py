from __future__ import annotations

from unittest import mock

from pgdoc.changes.assembler import Assembler
from pgdoc.changes.change import Burst
from pgdoc.changes.registry import Registry
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.replication.reader import Reader
from pgdoc.replication.session import ReplicationSession, read_burst
from pgdoc.replication.source import Cluster, SlotStart


def session(frames: list[bytes]) -> tuple[ReplicationSession, mock.Mock]:
    reader = mock.create_autospec(Reader, instance=True, has_large_buffer=False)
    reader.read.return_value = frames
    decoder = PLUGINS["pgoutput"].decoder("docs")
    assembler = Assembler(100, Registry("docs"))
    opened = ReplicationSession(reader, decoder, assembler, Cluster(7, 1), SlotStart(100, "pgoutput"))
    return opened, reader


def keepalive(wal_end: int) -> bytes:
    return b"k" + wal_end.to_bytes(8) + bytes(8) + b"\0"


def test_a_burst_without_frames_is_empty_and_leaves_the_watermark_where_it_was():
    opened, reader = session([])
    assert read_burst(opened, 0.5) == (Burst([], 100, None), False)
    reader.read.assert_called_once_with(0.5)


def test_a_burst_is_what_the_decoder_and_the_assembler_make_of_the_frames():
    opened, _ = session([keepalive(150), keepalive(170)])
    assert read_burst(opened, 0.0) == (Burst([], 170, None), True)
