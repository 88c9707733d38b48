"""Stores as the commands open them: with a connection name, and advice where no database is named."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pgdoc
from pgdoc.database.conninfo import with_application_name
from pgdoc.errors import DatabaseError, PgdocError, ServerUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEFAULT_SCHEMA", "conninfo_of_command", "explain_missing_dsn", "open_store"]

DEFAULT_SCHEMA = "docs"

_NAME_A_DATABASE = (
    "Neither --dsn nor PGDOC_DSN is set, so pgdoc used libpq's PG* variables and defaults: set PGDOC_DSN, for example "
    "to postgresql://user@localhost/mydb, or start a private server with `pgdoc up`"
)


@contextmanager
def open_store(
    command: str, dsn: str, schema: str = DEFAULT_SCHEMA, *, auto_create: bool = True, decimals: bool = False
) -> Iterator[pgdoc.Store]:
    """Open the store of a command, and close it at the end; errors have advice if no database was named.

    It deletes nothing that has expired, as other stores do: a command such as `dump` may be run to rescue that.
    """
    conninfo = conninfo_of_command(command, dsn)
    try:
        with pgdoc.Store(conninfo, schema=schema, auto_create=auto_create, decimals=decimals) as store:
            store._connections.sweeper.begin_to_stop()  # noqa: SLF001 (one package)
            yield store
    except (ServerUnreachable, DatabaseError) as exc:
        if dsn:
            raise
        raise explain_missing_dsn(exc) from exc


def conninfo_of_command(command: str, dsn: str) -> str:
    """Name the connections of a command `pgdoc <command>` in `pg_stat_activity`."""
    return with_application_name(dsn, command)


def explain_missing_dsn(error: PgdocError) -> PgdocError:
    """Add advice on naming a database to the error of a connection without a DSN."""
    if isinstance(error, DatabaseError) and error.sqlstate is not None:
        return error  # the server answered a statement, so there is a database
    return type(error)(f"{str(error).rstrip('.')}. {_NAME_A_DATABASE}")
