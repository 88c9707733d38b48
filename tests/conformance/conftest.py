from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore = [] if os.environ.get("PGDOC_VECTORS") else ["test_vectors.py"]


@pytest.fixture(scope="module")
def connection(server: Any, shared_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.conninfo_for(shared_database), autocommit=True) as connection:
        yield connection
