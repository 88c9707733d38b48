"""The catalog: settings, the publication, and what makes a plain table a collection."""

from pathlib import Path
from typing import Any

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    run("query_functions.sql")
    run("0001_catalog.sql")


def downgrade() -> None:
    run("0001_catalog_down.sql")


def run(name: str) -> None:
    """Execute a file of SQL as it stands, past SQLAlchemy, which would read `:name` and `%` in it as parameters."""
    psycopg_connection: Any = op.get_bind().connection.driver_connection
    psycopg_connection.execute((SQL / name).read_bytes())
