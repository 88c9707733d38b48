"""The names under which the connections of a store appear in the server's statistics."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgdoc


def names(dsn: str, backend_type: str) -> set[str]:
    query = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND backend_type = %s"
    with psycopg.connect(dsn, application_name="test") as connection:
        rows = connection.execute(query, [backend_type]).fetchall()
    return {row[0] for row in rows} - {"test"}


@pytest.fixture(autouse=True)
def no_name_in_the_environment(monkeypatch):
    monkeypatch.delenv("PGAPPNAME", raising=False)


def test_pooled_connections_say_which_store_they_serve(dsn):
    with pgdoc.Store(dsn) as store, pgdoc.Store(dsn, schema="shop") as shop:
        for each in (store, shop):
            each.create_collection("orders")
        assert names(dsn, "client backend") == {"pgdoc store docs", "pgdoc store shop"}


def test_walsenders_say_which_streams_or_consumer_they_serve(dsn):
    with pgdoc.Store(dsn, schema="shop") as store, pgdoc.Store(dsn, schema="shop") as other:
        # A consumer of the same store would go over to the hub.
        with store.watch("orders"), other.watch(consumer="billing"):
            assert names(dsn, "walsender") == {"pgdoc hub shop", "pgdoc consumer billing"}
            others = names(dsn, "client backend")
            assert {name for name in others if not name.startswith("pgdoc ")} == set()
        store.drop_consumer("billing")


def test_the_name_of_the_user_comes_first_and_a_long_one_loses_its_end(dsn, monkeypatch):
    for own, shown in (("worker 7", "worker 7: pgdoc store docs"), ("x" * 60, "x" * 60 + ": p")):
        with pgdoc.Store(make_conninfo(dsn, application_name=own)) as store:
            store.create_collection("orders")
            assert names(dsn, "client backend") == {shown}
    monkeypatch.setenv("PGAPPNAME", "worker 8")
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        assert names(dsn, "client backend") == {"worker 8: pgdoc store docs"}
