"""Waiting for a flush of the WAL ends."""

from __future__ import annotations

import time

import pytest

from pgdoc._sync.stream_backend import StreamBackend
from pgdoc.consumers.ownership import Ownership
from pgdoc.errors import ServerUnreachable
from pgdoc.replication.checks import check_flush


def test_a_server_that_does_not_flush_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    check_flush(time.monotonic() + 60)
    monkeypatch.setattr("pgdoc.consumers.ownership.FLUSH_LIMIT_S", -1.0)
    monkeypatch.setattr("pgdoc._sync.stream_backend.FLUSH_LIMIT_S", -1.0)
    monkeypatch.setattr(Ownership, "wal_end", lambda _: (5, 3))
    monkeypatch.setattr(StreamBackend, "fetch", lambda *_: [])
    with pytest.raises(ServerUnreachable, match="has not flushed its WAL"):
        Ownership.__new__(Ownership).flush(4)
    with pytest.raises(ServerUnreachable, match="has not flushed its WAL"):
        StreamBackend.__new__(StreamBackend).flush(3, 4)
