"""Run the migrations in one transaction, on the connection that `pgdoc.database.migrate` passes in, under a lock."""

import logging
from pathlib import Path
from typing import Any

import psycopg
from alembic import context
from sqlalchemy import Connection, text

logger = logging.getLogger("pgdoc.migrate")

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pgdoc migrate', 0))"
HAS_REGISTRY = "SELECT to_regclass('pgdoc.registry') IS NOT NULL"
EVENT_TRIGGERS = Path(__file__).parent / "sql" / "event_triggers.sql"


def run_migrations(connection: Connection) -> None:
    with connection.begin():
        connection.execute(text(LOCK))
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS pgdoc"))
        context.configure(connection=connection, version_table_schema="pgdoc")
        context.run_migrations()
        if context.get_context().get_current_heads() == ():
            connection.execute(text("DROP TABLE IF EXISTS pgdoc.alembic_version"))
            connection.execute(text("DROP SCHEMA pgdoc"))
        elif connection.scalar(text(HAS_REGISTRY)):
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.execute("SELECT pgdoc.rebind()")
            follow_ddl(driver_connection)


def follow_ddl(connection: psycopg.Connection[Any]) -> None:
    """Install the event triggers, if the role may create them."""
    try:
        with connection.transaction():
            connection.execute(EVENT_TRIGGERS.read_bytes())
    except psycopg.errors.InsufficientPrivilege:
        logger.warning(
            "this role can't create event triggers: streams see what SQL does to collections (DROP, RENAME) up to five "
            "seconds later, and read through pgoutput"
        )


run_migrations(context.config.attributes["connection"])
