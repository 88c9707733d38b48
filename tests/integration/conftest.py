"""For the tests of streams: one database for many of them, and a schema for each, for a database takes longer to make
than most of them run.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.fixtures.fix_leftovers import what_is_left
from tests.fixtures.fix_server import _connect_admin, _database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_database(server: Server, template: str) -> Iterator[str]:
    with _connect_admin(server) as admin, _database(server, admin, template, "shared") as name:
        yield name


@pytest.fixture
def shared_dsn(server: Server, shared_database: str) -> Iterator[str]:
    """A database with the catalog, where others have been before: look at `schema` only."""
    yield server.conninfo_for(shared_database)
    with _connect_admin(server) as admin:
        left = what_is_left(admin, shared_database)
    assert not left, f"left behind at the server: {left}"


@pytest.fixture
def schema() -> str:
    """A schema of one's own."""
    return f"Docs-{next(_numbers)}"


@pytest.fixture
def sql(shared_dsn: str, schema: str) -> Iterator[psycopg.Connection]:
    """Someone at psql, in the schema."""
    with psycopg.connect(shared_dsn, options=f'-c search_path="{schema}"', autocommit=True) as connection:
        yield connection
