"""Beyond one machine: events of the application's own, and what relays need."""

from pathlib import Path
from typing import Any

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"
PARTS = ("messages", "partitions", "relays", "groups")  # each has a file `0013_<part>.sql`, and one with `_down`


def upgrade() -> None:
    for part in PARTS:
        run(f"0013_{part}.sql")


def downgrade() -> None:
    for part in reversed(PARTS):
        run(f"0013_{part}_down.sql")


def run(name: str) -> None:
    """Execute an SQL file on the psycopg connection: SQLAlchemy would parse `:name` and `%` in it as parameters."""
    psycopg_connection: Any = op.get_bind().connection.driver_connection
    psycopg_connection.execute((SQL / name).read_bytes())
