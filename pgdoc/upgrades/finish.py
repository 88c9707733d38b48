"""After an upgrade of PostgreSQL: lets consumers go on, and the databases take writes again.

For each database that was prepared:

1. Check that its tables are still frozen, so nothing was written since `prepare`.
2. Upgrade the catalog, and make it this cluster's own (as `pgdoc init` does), still frozen.
3. Make each consumer's slot, and store that the consumer goes on there.
4. Begin history, and thaw.

Interrupted anywhere, another run does what is left. It also works after a dump and restore into another cluster.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc.database.migrate import migrate
from pgdoc.errors import UpgradeRefused
from pgdoc.replication.connection import connect, map_replication_error, preflight
from pgdoc.sql import statement
from pgdoc.upgrades.databases import PURPOSE, fetch_state, find_databases
from pgdoc.upgrades.moving import move_consumers, thaw

if TYPE_CHECKING:
    from pgdoc.upgrades.databases import CatalogDatabase, Report
    from pgdoc.upgrades.moving import MovedConsumer

__all__ = ["FinishedDatabase", "finish_upgrade"]


class FinishedDatabase(NamedTuple):
    """A database that takes writes again.

    Attributes:
        was_finished: whether there was nothing left to do.
        schemas: those with collections or watched tables.
    """

    database: str
    was_finished: bool
    consumers: tuple[MovedConsumer, ...]
    schemas: tuple[str, ...]


def finish_upgrade(  # noqa: PLR0913 (the options of the command)
    conninfo: str, *, only: bool, plugin: str, accept_losses: bool, timeout_s: float, report: Report
) -> list[FinishedDatabase]:
    """Finish the upgrade of the databases of a cluster.

    Args:
        conninfo: of any database of the cluster.
        only: finish just the database of the conninfo.
        plugin: the output plugin of the consumers' slots; `auto` for the one that each had, if the server has it.
        accept_losses: go on although tables took writes since `prepare`, which consumers then miss.
        timeout_s: how long to wait for locks.
        report: is called with what is being done.

    Raises:
        UpgradeRefused: a database was not prepared, or is not upgraded yet, or took writes.
        PluginMissing, PluginNotAllowed: the server can't use `plugin`.
    """
    deadline = time.monotonic() + timeout_s
    databases = find_databases(conninfo, only=only)
    for database in databases:
        _check(database, accept_losses=accept_losses)
    return [_finish(database, plugin, deadline, report, accept_losses=accept_losses) for database in databases]


def _check(database: CatalogDatabase, *, accept_losses: bool) -> None:
    """Check everything before the first database is changed."""
    with connect(database.conninfo, replication=False, purpose=PURPOSE) as connection:
        try:
            preflight(connection)
            state = fetch_state(connection)
            if state is None:
                _check_was_finished(connection, database)
                return
            if state.is_here:
                raise UpgradeRefused(
                    f'database "{database.name}" is still on the cluster that was prepared (PostgreSQL '
                    f"{state.server}): upgrade the cluster first, or run `pgdoc upgrade prepare --cancel`"
                )
            if not state.is_prepared:
                raise UpgradeRefused(
                    f'`pgdoc upgrade prepare` was interrupted in database "{database.name}" before the upgrade, so '
                    "consumers may lack events: run `pgdoc upgrade prepare --cancel` here, drop the consumers, and "
                    "rebuild what they feed"
                )
            rows = connection.execute(statement("upgrade", "writable").encode(), []).fetchall()
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    if rows and not accept_losses:
        findings = tuple(f'table "{row.schema_name}.{row.name}" takes writes, or is gone' for row in rows)
        raise UpgradeRefused(
            f'database "{database.name}" was changed since `pgdoc upgrade prepare`, and consumers would miss that: run '
            "finish with --accept-losses, and rebuild what they feed",
            findings=findings,
        )


def _check_registered(connection: psycopg.Connection[Any], database: CatalogDatabase, *, accept_losses: bool) -> None:
    """Refuse to go on if consumers would miss the changes of a table from here on."""
    left_out = [row.name for row in connection.execute(statement("upgrade", "left_out")).fetchall()]
    if left_out and not accept_losses:
        raise UpgradeRefused(
            f'tables of database "{database.name}" could not be registered again (the warnings say why), and consumers '
            "would miss their changes: run finish with --accept-losses, and register them (pgdoc.register, add_table)",
            findings=tuple(f"table {name} is not registered" for name in left_out),
        )


def _check_was_finished(connection: psycopg.Connection[Any], database: CatalogDatabase) -> None:
    try:
        row = connection.execute(statement("upgrade", "was_finished")).fetchone()
        bound = connection.execute(statement("upgrade", "is_bound")).fetchone()
    except psycopg.errors.UndefinedTable:
        row = bound = None
    if not row or not row[0] or not bound or not bound[0]:
        raise UpgradeRefused(
            f'database "{database.name}" was not prepared with `pgdoc upgrade prepare`, so its consumers may lack '
            "events: run `pgdoc init` if it was upgraded, drop the consumers, and rebuild what they feed"
        )


def _finish(
    database: CatalogDatabase, plugin: str, deadline: float, report: Report, *, accept_losses: bool
) -> FinishedDatabase:
    with connect(database.conninfo, replication=False, purpose=PURPOSE) as connection:
        state = fetch_state(connection)
    if state is not None:
        report(database.name, "upgrading the catalog")
        migrate(database.conninfo)
    moved: list[MovedConsumer] = []
    with connect(database.conninfo, replication=False, purpose=PURPOSE) as connection:
        try:
            if state is not None:
                _check_registered(connection, database, accept_losses=accept_losses)
                moved = move_consumers(database, connection, plugin, report)
                thaw(database, connection, deadline, report)
            schemas = [row[0] for row in connection.execute(statement("upgrade", "schemas")).fetchall()]
        except psycopg.Error as exc:
            raise map_replication_error(exc, connection) from exc
    return FinishedDatabase(database.name, state is None, tuple(moved), tuple(schemas))
