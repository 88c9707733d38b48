from __future__ import annotations

from unittest import mock

import psycopg

from pgdoc.replication.standby import StandbyCheck


def test_a_check_closes_only_a_connection_of_its_own() -> None:
    own, shared = (mock.create_autospec(psycopg.Connection, instance=True) for _ in range(2))
    StandbyCheck(own, closes=True).close()
    StandbyCheck(shared, closes=False).close()
    assert own.close.called
    assert not shared.close.called
