"""What pgdoc needs of a server and of the catalog in the database: pure judgements of what was found there."""

from __future__ import annotations

from pgdoc.errors import CatalogMissing, CatalogVersionMismatch, UnsupportedServer

__all__ = ["FIND_REVISION", "REVISION", "check_revision", "check_server"]

REVISION = "0006"
"""The newest revision in `migrations/versions`: the one this pgdoc works with."""

FIND_REVISION = b"SELECT version_num FROM pgdoc.alembic_version"

_OLDEST_SERVER = 150000


def check_server(version: int, encoding: str | None) -> None:
    """Refuse a server that pgdoc can't work on.

    Args:
        version: as libpq's `PQserverVersion` has it, such as 150004.
        encoding: the `server_encoding` of the database.

    Raises:
        UnsupportedServer: older than PostgreSQL 15, or not in UTF-8.
    """
    if version < _OLDEST_SERVER:
        found = f"{version // 10000}.{version % 10000}"
        raise UnsupportedServer(f"the server is PostgreSQL {found}: pgdoc needs version 15 or newer")
    if encoding != "UTF8":
        raise UnsupportedServer(
            f"the database is encoded in {encoding}, pgdoc needs UTF8: "
            "make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def check_revision(found: str | None) -> None:
    """Refuse a catalog that is not at `REVISION`.

    Args:
        found: the revision in the database, or `None` where it has no catalog.

    Raises:
        CatalogMissing: there is none.
        CatalogVersionMismatch: it is older, or newer, than this pgdoc.
    """
    if found is None:
        raise CatalogMissing("the database has no pgdoc catalog: create it with `pgdoc init`, or `store.migrate()`")
    if found != REVISION:
        cure = "run `pgdoc init`" if found < REVISION else "install a newer pgdoc"
        raise CatalogVersionMismatch(
            f"the pgdoc catalog is at revision {found}, this pgdoc needs {REVISION}: {cure}",
            found_version=found,
            needed_version=REVISION,
        )
