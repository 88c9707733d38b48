"""A transaction that is larger than any buffer passes through a stream in flat memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import psycopg

ROOT = Path(__file__).parents[2]
LIMIT_KIB = 100 << 10  # of the 64 MiB of a buffer, and what lies around it
DOCUMENT_BYTES = 1_500

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_a_transaction_of_100_000_changes(shared_dsn: str, schema: str, sql: psycopg.Connection) -> None:
    check_flat(shared_dsn, schema, sql, 100_000)


def check_flat(dsn: str, schema: str, sql: psycopg.Connection, count: int) -> None:
    """Write that many documents in one transaction, of more bytes than the limit, while another process reads them."""
    assert count * DOCUMENT_BYTES > LIMIT_KIB << 10
    command = [sys.executable, "-m", "tests.million", dsn, schema, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        sql.execute(
            "INSERT INTO orders (id, data) SELECT n::text, jsonb_build_object('n', n, 'x', repeat('x', %s)) "
            "FROM generate_series(1, %s) AS n",
            [DOCUMENT_BYTES, count],
        )
        found = json.loads(process.stdout.read())
    assert (found["seen"], found["total"]) == (count, count * (count + 1) // 2)
    assert found["grown_kib"] < LIMIT_KIB
