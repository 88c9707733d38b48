"""Tables that are watched as they are."""

from pathlib import Path
from typing import Any

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    run("0010_tables.sql")
    run("0010_registry.sql")
    run("0010_streams.sql")
    run("0010_snapshots.sql")


def downgrade() -> None:
    # First: the event triggers read columns that go.
    run("0009_event_triggers.sql", where="SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'pgdoc_alters'")
    run("0010_snapshots_down.sql")
    run("0010_streams_down.sql")
    run("0010_tables_down.sql")


def run(name: str, where: str = "SELECT") -> None:
    """Execute an SQL file on the psycopg connection: SQLAlchemy would parse `:name` and `%` in it as parameters.

    Do nothing if the query `where` finds no row.
    """
    psycopg_connection: Any = op.get_bind().connection.driver_connection
    if psycopg_connection.execute(where).fetchone() is not None:
        psycopg_connection.execute((SQL / name).read_bytes())
