# Written by .ci/twins.py from pgdoc/_async/server_checks.py: change that file, and run it.
"""What a store asks its server before it opens the pool."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.database.catalog import FIND_FOREIGN_OWNER, FIND_REVISION, check_owner
from pgdoc.database.errors import map_error
from pgdoc.database.expiry import HAS_WORK
from pgdoc.database.pooling import leads_directly, statement_mode
from pgdoc.database.session_settings import SESSION
from pgdoc.sql import statement

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["find_revision", "has_work", "settings_of"]


def settings_of(connection: Connection[Any]) -> dict[str, str | None]:
    """Return the settings that document calls depend on; behind a pooler, as a transaction has them.

    Raises:
        UnsupportedServer: the pooler allows no transactions.
    """
    query = statement("catalog", "session_settings").encode()
    try:
        with nullcontext() if leads_directly(connection) else connection.transaction():
            return dict((connection.execute(query, [[*SESSION, "role"]])).fetchall())
    except psycopg.Error as exc:
        raise statement_mode(exc) or map_error(exc, "the settings of the session") from exc


def has_work(connection: Connection[Any], schema: str) -> bool:
    """Return whether this session may delete documents that expire. Only the thread that would reports errors."""
    try:
        row = (connection.execute(HAS_WORK, [schema])).fetchone()
    except psycopg.Error:
        return False
    return bool(row and row[0])


def find_revision(connection: Connection[Any]) -> str | None:
    """Return the revision of the catalog; `None` if there is none.

    Raises:
        CatalogNotTrusted: the role is a superuser, and another role owns the catalog.
    """
    try:
        check_owner((connection.execute(FIND_FOREIGN_OWNER)).fetchone())
        row = (connection.execute(FIND_REVISION)).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    except psycopg.Error as exc:
        raise map_error(exc, "the pgdoc catalog") from exc
    return row[0] if row else None
