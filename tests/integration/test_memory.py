"""A stream reads a transaction larger than any buffer in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]
LIMIT_KIB = 100 << 10  # a buffer of 64 MiB, and overhead
DOCUMENT_BYTES = 1_200

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_a_transaction_of_100_000_changes(rough_dsn: str, rough_schema: str) -> None:
    check_flat(rough_dsn, rough_schema, 100_000)


def check_flat(dsn: str, schema: str, count: int) -> None:
    """Write documents of more bytes than the limit in one transaction while another process reads them."""
    assert count * DOCUMENT_BYTES > LIMIT_KIB << 10
    command = [sys.executable, "-m", "tests.million", dsn, schema, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with psycopg.connect(dsn) as connection:
            connection.execute(
                f"INSERT INTO {schema}.orders (id, data) SELECT n, jsonb_build_object('n', n, 'x', repeat('x', %s)) "
                "FROM generate_series(1, %s) AS n",
                [DOCUMENT_BYTES, count],
            )
        found = json.loads(process.stdout.read())
    assert (found["seen"], found["total"]) == (count, count * (count + 1) // 2)
    assert found["grown_kib"] < LIMIT_KIB
