"""Upgrade, downgrade or remove the catalog of a database.

alembic runs the files of `migrations/`, which the wheel contains as `pgdoc/_migrations`. It is imported on first use,
so that `import pgdoc` stays fast.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgdoc.database.catalog import FIND_FOREIGN_OWNER, check_owner, check_server
from pgdoc.database.conninfo import PlainConnection, with_timeout
from pgdoc.database.errors import connection_error, map_error, one_line
from pgdoc.database.quoting import identifier
from pgdoc.errors import DatabaseError, PgdocError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

__all__ = ["downgrade", "migrate"]

logger = logging.getLogger("pgdoc.migrate")

SETTINGS = """
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('jit', 'off', true)
"""  # for the transaction: through a pooler, others get the session next. Here, compiling takes longer than the rest.
_LOCK_HOLDERS = b"""
SELECT DISTINCT l.pid, a.usename
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
WHERE l.granted AND l.relation OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid
  AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
  AND a.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
"""
_FEW = 10
BLOCKED_S = 10
"""How long a statement waits, with all that queue behind it, for a transaction that uses a table."""


def migrate(conninfo: str = "") -> None:
    """Create the catalog, or upgrade it to the newest revision; safe to call from many processes at once.

    Raises:
        ServerUnreachable: no connection could be made.
        UnsupportedServer: the server is older than PostgreSQL 15, or the encoding of the database is not UTF-8.
        CatalogNotTrusted: the role is a superuser, but another role owns the catalog.
        DatabaseError: the role lacks a privilege, or the server refused for another reason.
    """
    _run(conninfo, "upgrade", "head")


def downgrade(conninfo: str = "", revision: str = "base") -> None:
    """Downgrade the catalog to a revision. `base` removes it; the collections remain as plain tables with their data.

    Raises the errors of `migrate`.
    """
    _run(conninfo, "downgrade", revision)


def _run(conninfo: str, command: str, revision: str) -> None:
    import sqlalchemy  # noqa: PLC0415 (imported on first use)
    from alembic import command as alembic_command  # noqa: PLC0415

    with _connect(conninfo) as connection:
        info = connection.info
        grant = f"GRANT CREATE ON DATABASE {identifier(info.dbname)} TO {identifier(info.user)}"
        check_server(connection.info.server_version, connection.info.parameter_status("server_encoding"))
        check_owner(connection.execute(FIND_FOREIGN_OWNER).fetchone())
        # SQLAlchemy looks around as soon as it connects, before `env.py` begins its own transaction.
        connection.execute(SETTINGS)
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: connection, poolclass=sqlalchemy.NullPool, use_native_hstore=False
        )
        try:
            with engine.connect() as alchemy:
                getattr(alembic_command, command)(_config(alchemy), revision)
        except sqlalchemy.exc.DBAPIError as exc:
            raise _migration_error(command, exc.orig, conninfo, grant) from exc.orig
        except psycopg.Error as exc:
            raise _migration_error(command, exc, conninfo, grant) from exc


def _connect(conninfo: str) -> psycopg.Connection:
    try:
        connection = PlainConnection.connect(with_timeout(conninfo), prepare_threshold=None)
    except psycopg.Error as exc:
        raise connection_error(exc) from exc
    connection.add_notice_handler(_log_notice)
    return connection


def _log_notice(notice: psycopg.errors.Diagnostic) -> None:
    """Log what a migration reports about the tables that it finds."""
    level = logging.WARNING if notice.severity_nonlocalized == "WARNING" else logging.INFO
    logger.log(level, "%s", notice.message_primary)


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_script_location()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"], config.attributes["blocked_s"] = connection, BLOCKED_S
    return config


def _script_location() -> Path:
    package = Path(__file__).parents[1]
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def _migration_error(command: str, exc: BaseException | None, conninfo: str, grant: str) -> DatabaseError:
    if isinstance(exc, psycopg.errors.LockNotAvailable):
        return DatabaseError(
            f"the {command} of the pgdoc catalog waited too long for a lock. Sessions with locks on tables: "
            f"{_list_lock_holders(conninfo)}. End their transactions, and run it again",
            sqlstate=exc.sqlstate,
        )
    error = map_error(exc, f"the {command} of the pgdoc catalog") if isinstance(exc, psycopg.Error) else None
    if not isinstance(error, DatabaseError):
        return DatabaseError(f"the {command} of the pgdoc catalog failed: {exc}")
    if error.sqlstate == "42501":
        found = f"the {command} of the pgdoc catalog: {one_line(exc) if isinstance(exc, psycopg.Error) else exc}"
        advice = f"Run it as the role that owns the catalog, or, if there is none yet, run {grant} first"
        return DatabaseError(f"{found}. {advice}", sqlstate=error.sqlstate)
    return error


def _list_lock_holders(conninfo: str) -> str:
    """Name the sessions that hold table locks; the one that was in the way may have ended meanwhile."""
    try:
        with _connect(conninfo) as connection:
            rows = connection.execute(_LOCK_HOLDERS).fetchmany(_FEW)
    except (psycopg.Error, PgdocError):
        return "unknown"
    return ", ".join(f'pid {pid} of role "{role}"' for pid, role in rows) or "none any more"
