"""Run the migrations in one transaction, on the connection that `pgdoc.database.migrate` passes in, under a lock."""

import logging
from pathlib import Path
from typing import Any

import psycopg
from alembic import context
from sqlalchemy import Connection, text

from pgdoc.database.catalog import FIND_FOREIGN_OWNER, check_owner
from pgdoc.database.migrate import SETTINGS

logger = logging.getLogger("pgdoc.migrate")

HAS_VERSION_TABLE = "SELECT pg_catalog.to_regclass('pgdoc.alembic_version') IS NOT NULL"
CREATE_VERSION_TABLE = """
CREATE SCHEMA IF NOT EXISTS pgdoc;
CREATE TABLE pgdoc.alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY);
"""  # as alembic creates it
# Only the catalog's owner can take it. It lets others read, so that readers can't delay it.
LOCK = "LOCK TABLE pgdoc.alembic_version IN EXCLUSIVE MODE"
QUEUE_S = 60  # how long to wait for other processes that migrate
TRIES = 10
OVERTAKEN = (
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.UniqueViolation,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
)
"""Another process created or removed the catalog at the same time."""
HAS_REGISTRY = "SELECT to_regclass('pgdoc.registry') IS NOT NULL"
SQL = Path(__file__).parent / "sql"


def run_migrations(connection: Connection) -> None:
    with connection.begin():
        connection.execute(text(SETTINGS))
        driver_connection: Any = connection.connection.driver_connection
        lock(driver_connection)
        # Again: until there was a schema, another role could create it. From here on only a superuser can give it away.
        check_owner(driver_connection.execute(FIND_FOREIGN_OWNER).fetchone())
        context.configure(connection=connection, version_table_schema="pgdoc")
        context.run_migrations()
        if context.get_context().get_current_heads() == ():
            connection.execute(text("DROP TABLE IF EXISTS pgdoc.alembic_version"))
            connection.execute(text("DROP SCHEMA pgdoc"))
        elif connection.scalar(text(HAS_REGISTRY)):
            driver_connection.execute("SELECT pgdoc.rebind()")
            knows_tables = context.get_context().get_current_heads() >= ("0010",)
            follow_ddl(driver_connection, "event_triggers.sql" if knows_tables else "0009_event_triggers.sql")
            driver_connection.execute((SQL / "privileges.sql").read_bytes())


def lock(connection: psycopg.Connection[Any]) -> None:
    """Lock the catalog for this transaction, and create its first table if there is none."""
    connection.execute(f"SET LOCAL lock_timeout = '{QUEUE_S}s'")
    for left in reversed(range(TRIES)):
        try:
            with connection.transaction():
                if connection.execute(HAS_VERSION_TABLE).fetchone() == (False,):
                    connection.execute(CREATE_VERSION_TABLE)
                connection.execute(LOCK)
            break
        except OVERTAKEN:
            if not left:
                raise
    connection.execute(f"SET LOCAL lock_timeout = '{context.config.attributes['blocked_s']}s'")


def follow_ddl(connection: psycopg.Connection[Any], name: str) -> None:
    """Install the event triggers, if the role may create them."""
    try:
        with connection.transaction():
            connection.execute((SQL / name).read_bytes())
    except psycopg.errors.InsufficientPrivilege:
        logger.warning(
            "this role can't create event triggers: streams see what SQL does to collections (DROP, RENAME) up to five "
            "seconds later, and read through pgoutput"
        )


run_migrations(context.config.attributes["connection"])
