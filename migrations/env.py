"""Run the migrations in one transaction, on the connection that `pgdoc.database.migrate` passes in, under a lock."""

from alembic import context
from sqlalchemy import Connection, text

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pgdoc migrate', 0))"
CAN_FOLLOW_DDL = "SELECT to_regprocedure('pgdoc.follow_ddl()') IS NOT NULL"


def run_migrations(connection: Connection) -> None:
    with connection.begin():
        connection.execute(text(LOCK))
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS pgdoc"))
        context.configure(connection=connection, version_table_schema="pgdoc")
        context.run_migrations()
        if context.get_context().get_current_heads() == ():
            connection.execute(text("DROP TABLE IF EXISTS pgdoc.alembic_version"))
            connection.execute(text("DROP SCHEMA pgdoc"))
        elif connection.scalar(text(CAN_FOLLOW_DDL)):  # only a superuser may create event triggers
            connection.execute(text("SELECT pgdoc.follow_ddl()"))


run_migrations(context.config.attributes["connection"])
