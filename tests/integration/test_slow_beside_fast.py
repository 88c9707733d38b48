"""A slow stream does not delay another stream, finally reads everything, and releases the WAL."""

from __future__ import annotations

import sys
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from tests.fixtures.fix_leftovers import what_is_left
from tests.slow_beside_fast import Found, Plan, Reading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

PATIENCE_S = 60.0
SMALL_BYTES = 4 << 20
SEGMENT_BYTES = 16 << 20
_HELD = "SELECT coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint FROM pg_replication_slots"
_STORED = "SELECT sum(size)::bigint FROM pg_ls_waldir()"


def test_the_fast_one_is_as_fast_and_the_slow_one_misses_nothing(private_dsn: str) -> None:
    plan = Plan(private_dsn, "docs", alone=300, beside=6_000, rest_s=0.1, pace_s=0.0, buffer_size=100, text_bytes=8_000)
    sys.stdout.write(f"{check(plan, limit_kib=24 << 10)}\n")


def check(plan: Plan, limit_kib: int) -> Found:
    """Run the measurement; check everything except the times."""
    assert plan.beside * plan.text_bytes > limit_kib << 10
    with psycopg.connect(make_conninfo(plan.conninfo, dbname="template1"), autocommit=True) as admin:
        _recycle_little(admin)
        with Store(plan.conninfo, schema=plan.schema) as store, Reading(plan) as reading:
            found = reading.measure()
            assert found.slow_before < plan.beside // 2
            assert found.left_live
            assert found.slow_in_order
            assert found.mode == ["live", "live"]
            assert found.grown_kib < limit_kib
            _check_that_wal_is_released(admin, store)
        assert what_is_left(admin, "postgres") == []
    return found


def _recycle_little(admin: psycopg.Connection) -> None:
    """Make checkpoints remove WAL files that no slot needs, instead of keeping them for reuse."""
    for setting in ("max_wal_size", "min_wal_size"):
        admin.execute(f"ALTER SYSTEM SET {setting} = '{2 * SEGMENT_BYTES >> 20}MB'")
    admin.execute("SELECT pg_reload_conf()")


def _check_that_wal_is_released(admin: psycopg.Connection, store: Store) -> None:
    """Check that the server removes the WAL that was retained for slow streams once history is short."""
    held, stored = _ask(admin, _HELD), _ask(admin, _STORED)
    assert held > 2 * SEGMENT_BYTES
    assert stored >= held
    store.set_history(size=SMALL_BYTES)
    deadline = time.monotonic() + PATIENCE_S
    while _ask(admin, _HELD) > SEGMENT_BYTES or _ask(admin, _STORED) > stored // 2:
        assert time.monotonic() < deadline, (
            f"slots retain {_ask(admin, _HELD)} bytes, pg_wal has {_ask(admin, _STORED)} bytes"
        )
        admin.execute("CHECKPOINT")
        time.sleep(0.1)


def _ask(admin: psycopg.Connection, query: str) -> int:
    row = admin.execute(query).fetchone()
    assert row is not None
    return int(row[0])
