"""What is checked of a standby, without one."""

from __future__ import annotations

from types import SimpleNamespace

import psycopg
import pytest

from pgdoc.errors import ServerUnreachable
from pgdoc.replication.connection import _check_standby
from pgdoc.replication.recovery import TimelineGuard


class Connection(psycopg.Connection):
    """Answers IDENTIFY_SYSTEM with one timeline after another; `None` stands for a lost connection."""

    def __init__(self, *timelines: int | None) -> None:  # of no server
        self._timelines = list(timelines)

    def execute(self, query: str, *_: object, **_options: object):  # type: ignore[override]
        assert query == "IDENTIFY_SYSTEM"
        timeline = self._timelines.pop(0)
        if timeline is None:
            raise psycopg.OperationalError("gone")
        return SimpleNamespace(fetchone=lambda: SimpleNamespace(timeline=timeline))


def test_a_burst_counts_as_read_only_while_the_standby_stays_on_its_timeline():
    guard = TimelineGuard(Connection(3, 3, 4, None), 3)
    guard.check()
    guard.check()
    with pytest.raises(ServerUnreachable, match="left timeline 3 for timeline 4"):
        guard.check()
    with pytest.raises(ServerUnreachable, match="gone"):
        guard.check()


def test_a_standby_of_an_older_version_is_named():
    _check_standby(160001, allows_standby=True)
    with pytest.raises(ServerUnreachable, match="PostgreSQL 15 can't decode there"):
        _check_standby(150008, allows_standby=True)
    with pytest.raises(ServerUnreachable, match="that is given as replication_conninfo"):
        _check_standby(180001, allows_standby=False)
