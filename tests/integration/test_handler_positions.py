"""A handler's own position never outlives the position of its consumer that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.errors import CatalogVersionMismatch
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = "00000000-0000-0000-0000-000000000000"
NEXT = "00000000-0000-0000-0000-000000000001"
ROW = {
    "name": "audit",
    "epoch": 1 << 60,
    "holder": NOBODY,
    "snapshot": None,
    "system": 7,
    "timeline": 1,
    "database": 16384,
    "place": [100, 50, 1, 0],
}


@pytest.fixture
def catalog(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A catalog in which a consumer has a handler that is far ahead of it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        put_handler(connection)
        yield connection


def put_handler(catalog: psycopg.Connection[Any]) -> None:
    catalog.execute(
        "INSERT INTO pgdoc.consumers (name, schema_name, epoch, holder, place, system_id, timeline, database_oid) "
        "VALUES ('audit', 'docs', %(epoch)s, %(holder)s, %(place)s, 7, 1, 16384), "
        "  ('other', 'docs', %(epoch)s, %(holder)s, %(place)s, 7, 1, 16384)",
        ROW,
    )
    catalog.execute(
        "INSERT INTO pgdoc.handlers (consumer, handler, epoch, holder, place) "
        "SELECT name, 'notify', epoch, holder, '{900,1,1,0}' FROM pgdoc.consumers",
    )
    catalog.execute("INSERT INTO pgdoc.upgrade_consumers (name, plugin) VALUES ('audit', 'pgoutput')")


def consumers_with_handlers(catalog: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in catalog.execute("SELECT consumer FROM pgdoc.handlers ORDER BY consumer")]


@pytest.mark.parametrize(
    ("file", "block", "values"),
    [
        ("consumers", "begin_anew", {}),
        ("consumers", "begin_anew", {"place": [1000, 0, 0, 0]}),
        ("upgrade", "move", {"system": 8, "place": [10, 0, 0, 0]}),
        ("upgrade", "move", {"system": 8, "place": [5000, 0, 0, 0]}),
        ("upgrade", "move", {"database": 16385}),
    ],
)
def test_a_statement_that_moves_a_consumer_elsewhere_deletes_the_positions_of_its_handlers(
    catalog: psycopg.Connection[Any], file: str, block: str, values: dict[str, Any]
) -> None:
    catalog.execute(statement(file, block).encode(), ROW | values)
    assert consumers_with_handlers(catalog) == ["other"]


def test_a_consumer_that_goes_on_keeps_the_positions_of_its_handlers(catalog: psycopg.Connection[Any]) -> None:
    further: list[Any] = [[200, 1, 1, 0], None, "7", 2, 16384]  # also on the timeline of a standby that was promoted
    catalog.execute(statement("consumers", "take_over").encode(), ROW | {"epoch": (1 << 60) + 1, "holder": NEXT})
    catalog.execute(
        statement("consumers", "checkpoint").encode(),
        [*further, "audit", (1 << 60) + 1, NEXT, [200, 1, 1, 0], [100, 50, 1, 0], 1],
    )
    assert catalog.execute("SELECT place, timeline FROM pgdoc.consumers WHERE name = 'audit'").fetchone() == (
        [200, 1, 1, 0],
        2,
    )
    assert consumers_with_handlers(catalog) == ["audit", "other"]


def test_a_consumer_that_is_dropped_takes_its_handlers_along(catalog: psycopg.Connection[Any]) -> None:
    catalog.execute(statement("consumers", "remove").encode(), ["audit"])
    assert consumers_with_handlers(catalog) == ["other"]


def test_a_role_that_may_only_write_consumers_deletes_the_positions_too(catalog: psycopg.Connection[Any]) -> None:
    """As one that got its rights before there were workers."""
    catalog.execute("CREATE ROLE pgdoc_old_streamer; GRANT SELECT, UPDATE ON pgdoc.consumers TO pgdoc_old_streamer")
    try:
        catalog.execute("SET ROLE pgdoc_old_streamer")
        catalog.execute("UPDATE pgdoc.consumers SET recreated = recreated + 1 WHERE name = 'audit'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            catalog.execute("DELETE FROM pgdoc.handlers")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            catalog.execute("SELECT * FROM pgdoc.dead_letters")
        catalog.execute("RESET ROLE")
        assert consumers_with_handlers(catalog) == ["other"]
    finally:
        catalog.execute("RESET ROLE; DROP OWNED BY pgdoc_old_streamer; DROP ROLE pgdoc_old_streamer")


def test_a_catalog_without_workers_can_be_upgraded_and_consumers_go_on(
    dsn: str, catalog: psycopg.Connection[Any]
) -> None:
    downgrade(dsn, "0011")
    catalog.execute(statement("consumers", "begin_anew").encode(), ROW)
    with pgdoc.Store(dsn) as store, pytest.raises(CatalogVersionMismatch, match="run `pgdoc init`"):
        store.dead_letters()
    migrate(dsn)
    with pgdoc.Store(dsn) as store:
        assert store.dead_letters() == []
        assert [consumer.name for consumer in store.consumers()] == ["audit", "other"]
    catalog.execute("DELETE FROM pgdoc.consumers")
    put_handler(catalog)
    catalog.execute(statement("consumers", "begin_anew").encode(), ROW)
    assert consumers_with_handlers(catalog) == ["other"]
