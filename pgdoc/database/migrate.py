"""Bring the catalog of a database to the newest version, or take it away.

alembic runs the files of `migrations/`, which the wheel carries as `pgdoc/_migrations`. It is imported when it is
needed and not before: `import pgdoc` stays light.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgdoc.database.catalog import check_server
from pgdoc.database.conninfo import with_timeout
from pgdoc.database.errors import connection_error, map_error
from pgdoc.errors import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

__all__ = ["downgrade", "migrate"]


def migrate(conninfo: str = "") -> None:
    """Bring the catalog to the newest version; safe to call from many processes at once.

    Raises:
        ServerUnreachable: no connection could be made.
        UnsupportedServer: the server is older than PostgreSQL 15, or the database is not in UTF-8.
        DatabaseError: the role may not do it, or the server refused for another reason.
    """
    _run(conninfo, "upgrade", "head")


def downgrade(conninfo: str = "", revision: str = "base") -> None:
    """Take the catalog back; at `base` it is gone and the collections are plain tables with all their data.

    Raises:
        ServerUnreachable: no connection could be made.
        DatabaseError: the server refused.
    """
    _run(conninfo, "downgrade", revision)


def _run(conninfo: str, command: str, revision: str) -> None:
    import sqlalchemy  # noqa: PLC0415 (see the module's docstring)
    from alembic import command as alembic_command  # noqa: PLC0415

    with _connect(conninfo) as connection:
        check_server(connection.info.server_version, connection.info.parameter_status("server_encoding"))
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: connection, poolclass=sqlalchemy.NullPool
        )
        try:
            with engine.connect() as alchemy:
                getattr(alembic_command, command)(_config(alchemy), revision)
        except sqlalchemy.exc.DBAPIError as exc:
            raise _refused(command, exc.orig) from exc.orig
        except psycopg.Error as exc:
            raise _refused(command, exc) from exc


def _connect(conninfo: str) -> psycopg.Connection:
    try:
        return psycopg.connect(with_timeout(conninfo))
    except psycopg.Error as exc:
        raise connection_error(exc) from exc


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_script_location()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _script_location() -> Path:
    package = Path(__file__).parents[1]
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def _refused(command: str, exc: BaseException | None) -> DatabaseError:
    error = map_error(exc, f"the {command} of the pgdoc catalog") if isinstance(exc, psycopg.Error) else None
    if not isinstance(error, DatabaseError):
        return DatabaseError(f"the {command} of the pgdoc catalog failed: {exc}")
    if error.sqlstate == "42501":
        return DatabaseError(f"{error}. Run it as the owner of the database", sqlstate=error.sqlstate)
    return error
