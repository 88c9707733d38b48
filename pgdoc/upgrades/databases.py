"""The databases of a cluster that have the pgdoc catalog, and how far the upgrade of each is.

pg_upgrade upgrades a cluster, and refuses one with slots that have not sent everything. Slots belong to the cluster,
too. So one run serves every database with a catalog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from pgdoc.database.catalog import FIND_FOREIGN_OWNER
from pgdoc.errors import CatalogMissing, UpgradeRefused
from pgdoc.replication.connection import connect, map_replication_error
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    Report = Callable[[str, str], None]
    """Is called with the name of a database, or an empty text, and what is being done."""

__all__ = ["PURPOSE", "CatalogDatabase", "UpgradeState", "fetch_state", "find_databases"]

PURPOSE = "upgrade"


class CatalogDatabase(NamedTuple):
    """A database with the catalog."""

    name: str
    conninfo: str


class UpgradeState(NamedTuple):
    """How far the upgrade of a database is.

    Attributes:
        is_here: whether this is still the cluster to be upgraded.
        is_prepared: whether every consumer has read to the end.
        server: the version of that cluster.
    """

    is_here: bool
    is_prepared: bool
    server: str
    began_at: datetime


def find_databases(conninfo: str, *, only: bool) -> list[CatalogDatabase]:
    """List the databases of the cluster that have a catalog; with `only`, just that of the conninfo.

    Raises:
        UpgradeRefused: this role may not look into a database, or may not act for its catalog.
        CatalogMissing: no database has a catalog.
    """
    with connect(conninfo, replication=False, purpose=PURPOSE) as connection:
        try:
            own = connection.info.dbname
            rows = connection.execute(statement("upgrade", "databases")).fetchall()
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    found: list[CatalogDatabase] = []
    findings: list[str] = []
    for row in rows:
        if only and row.name != own:
            continue
        if not row.may_connect:
            findings += [_hidden(row.name)] if row.slots else []
            continue
        database = CatalogDatabase(row.name, make_conninfo(conninfo, dbname=row.name))
        findings += _look(database, found)
    if findings:
        raise UpgradeRefused("the upgrade concerns databases of other roles", findings=tuple(findings))
    if not found:
        raise CatalogMissing("no database of this server has a pgdoc catalog: there is nothing to do for pgdoc")
    return found


def _hidden(name: str) -> str:
    return f'database "{name}" has slots of pgdoc, and this role may not connect to it: run this as another role'


def _look(database: CatalogDatabase, found: list[CatalogDatabase]) -> Iterator[str]:
    """Add the database if it has a catalog; yield why this role can't act for it."""
    with connect(database.conninfo, replication=False, purpose=PURPOSE) as connection:
        try:
            row = connection.execute(statement("upgrade", "catalog")).fetchone()
            if row is None:
                return
            # A superuser must not run the functions of another role.
            if not row.is_ours or connection.execute(FIND_FOREIGN_OWNER).fetchone():
                yield (
                    f'role "{row.owner}" owns the catalog of database "{database.name}": run this with --only as that '
                    "role, once for each of its databases"
                )
                return
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    found.append(database)


def fetch_state(connection: psycopg.Connection[Any]) -> UpgradeState | None:
    """Return how far the upgrade is; `None` if none is prepared."""
    try:
        row = connection.execute(statement("upgrade", "state")).fetchone()
    except psycopg.errors.UndefinedTable:  # the catalog of an earlier version
        return None
    return None if row is None else UpgradeState(*row)
