"""Concurrent index creation, and an index whose build is killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pgdoc import PgdocError, Store

MAKERS = 4
TIMEOUT_S = 30.0

BUILD = """
SELECT pid FROM pg_stat_progress_create_index
WHERE relid = to_regclass(%s) AND phase LIKE 'waiting for writers%%'
"""


def make(arguments: dict[str, Any]) -> str:
    with Store(**arguments) as store:
        return store["orders"].create_index("a", "-b", unique=True)


def test_concurrent_calls_of_create_index_create_one_index(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, ThreadPoolExecutor(MAKERS) as pool:
        store["orders"].insert_many([(str(n), {"a": n, "b": [n]}) for n in range(1_000)])
        futures = [pool.submit(make, own_schema) for _ in range(MAKERS)]
        (name,) = {future.result(TIMEOUT_S) for future in futures}
        (index,) = store["orders"].indexes()
        assert (index.name, index.valid) == (name, True)


def test_create_index_repairs_a_build_that_was_killed(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, ThreadPoolExecutor(1) as pool:
        store["orders"].insert("1", {"a": 1})
        with store.transaction() as tx:  # the build waits for this transaction
            tx["orders"].insert("2", {"a": 2})
            made = pool.submit(make, own_schema)
            kill_the_build(own_schema)
            with pytest.raises(PgdocError):
                made.result(TIMEOUT_S)
        assert make(own_schema) == make(own_schema)
        (index,) = store["orders"].indexes()
        assert index.valid
        assert [document.id for document in store["orders"].find({"a": {"$gt": 1}})] == ["2"]


def kill_the_build(own_schema: dict[str, Any]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    with psycopg.connect(own_schema["conninfo"], autocommit=True) as connection:
        while not (found := connection.execute(BUILD, [f'"{own_schema["schema"]}".orders']).fetchall()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", found[0])
