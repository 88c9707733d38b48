"""Check that a server and its catalog work with this version of pgdoc. No I/O."""

from __future__ import annotations

from pgdoc.errors import CatalogMissing, CatalogNotTrusted, CatalogVersionMismatch, UnsupportedServer
from pgdoc.sql import statement

__all__ = [
    "FIND_FOREIGN_OWNER",
    "FIND_REVISION",
    "OLDEST_SERVER",
    "REVISION",
    "check_owner",
    "check_revision",
    "check_server",
]

REVISION = "0013"
"""The newest revision in `migrations/versions`, which this version of pgdoc needs."""

FIND_REVISION = b"SELECT version_num FROM pgdoc.alembic_version"

FIND_FOREIGN_OWNER = statement("catalog", "foreign_owner").encode()
"""Finds the row for `check_owner`. Nothing in the schema `pgdoc` may be read before: even a table may be a view."""

OLDEST_SERVER = 150000


def check_server(version: int, encoding: str | None) -> None:
    """Check the server's version, as libpq's `PQserverVersion` returns it, and the database's encoding."""
    if version < OLDEST_SERVER:
        found = f"{version // 10000}.{version % 10000}"
        raise UnsupportedServer(f"the server is PostgreSQL {found}: pgdoc needs version 15 or newer")
    if encoding != "UTF8":
        raise UnsupportedServer(
            f"the database is encoded in {encoding}, but pgdoc needs UTF8: "
            "create one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def check_owner(row: tuple[str, ...] | None) -> None:
    """Check that no role can get the rights of a superuser by way of this session."""
    if row is not None:
        raise CatalogNotTrusted(
            f'a superuser is connected, but role "{row[0]}" owns the pgdoc catalog, and its functions would have the '
            f'rights of the superuser: connect as "{row[0]}" or as another role that is no superuser, or drop the '
            "schema pgdoc and run `pgdoc init` as the superuser"
        )


def check_revision(found: str | None) -> None:
    """Check that the catalog is at `REVISION`; `None` stands for a database without a catalog."""
    if found is None:
        raise CatalogMissing("the database has no pgdoc catalog: create it with `pgdoc init` or `store.migrate()`")
    if found != REVISION:
        cure = "run `pgdoc init`" if found < REVISION else "install a newer pgdoc"
        raise CatalogVersionMismatch(
            f"the pgdoc catalog is at revision {found}, but this version of pgdoc needs {REVISION}: {cure}",
            found_version=found,
            needed_version=REVISION,
        )
