"""Ranges over arrays, by an index on the span of their keys; indexes made before are built anew by `create_index`."""

from pathlib import Path
from typing import Any

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    run("0006_spans.sql")


def downgrade() -> None:
    run("0006_spans_down.sql")


def run(name: str) -> None:
    """Execute a file of SQL as it stands, past SQLAlchemy, which would read `:name` and `%` in it as parameters."""
    psycopg_connection: Any = op.get_bind().connection.driver_connection
    psycopg_connection.execute((SQL / name).read_bytes())
