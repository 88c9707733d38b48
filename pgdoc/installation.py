"""PostgreSQL's programs on this machine: where they are, and the one command that brings what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgdoc.errors import PluginMissing, ServerNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR = 15

_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # the packages of postgresql.org for Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",  # built from source
)


@dataclass(frozen=True, slots=True)
class Installation:
    """One PostgreSQL on this machine.

    Attributes:
        bin_dir: the folder of `postgres`, `initdb` and the others.
        major: the major version, 15 for 15.18.
        has_wal2json: whether the output plugin is in its library folder.
    """

    bin_dir: Path
    major: int
    has_wal2json: bool

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self.bin_dir / name)

    def knows(self, setting: str) -> bool:
        """Whether its server knows a configuration parameter; it refuses to start with one that it does not."""
        return f"\n{setting}\t" in _output(self.program("postgres"), "--describe-config")


def find_installation(bin_dir: str | os.PathLike[str] | None = None) -> Installation:
    """Find a PostgreSQL that can serve change streams.

    Without `bin_dir` it looks on `PATH`, then in the places where packages put it, newest first.

    Args:
        bin_dir: the folder of the programs, or the one above it; no other place is looked at.

    Returns:
        The first one that is new enough and has wal2json.

    Raises:
        ServerNotFound: no PostgreSQL, or none that is new enough.
        PluginMissing: PostgreSQL is there, wal2json is not.
    """
    found = _new_enough(bin_dir)
    if not found:
        where = f"in {os.fspath(bin_dir)}" if bin_dir else "on PATH or in the usual places"
        raise ServerNotFound(f"no PostgreSQL {OLDEST_MAJOR} or newer {where}: install it with `{mending_command()}`")
    for one in found:
        if one.has_wal2json:
            return one
    major = found[0].major
    raise PluginMissing(
        f"PostgreSQL {major} in {found[0].bin_dir} has no wal2json: install it with `{mending_command(major)}`"
    )


def missing_command() -> str | None:
    """Return the one command that brings what `find_installation` does not find; `None` where it finds it."""
    found = _new_enough(None)
    if any(one.has_wal2json for one in found):
        return None
    return mending_command(found[0].major if found else None)


def mending_command(major: int | None = None) -> str:
    """Return the one shell command that installs PostgreSQL with wal2json on this system.

    Args:
        major: the version that is installed already; `None` where there is none.
    """
    if shutil.which("apt-get"):
        major = major or _newest_packaged()
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{sudo}apt-get install -y postgresql-{major}-wal2json"
    if sys.platform == "darwin" and shutil.which("brew"):
        return "brew install wal2json"
    return "docker compose -f docker/compose.yaml up -d --wait"


def _new_enough(bin_dir: str | os.PathLike[str] | None) -> list[Installation]:
    return [one for one in map(_look_at, _candidates(bin_dir)) if one is not None and one.major >= OLDEST_MAJOR]


def _candidates(bin_dir: str | os.PathLike[str] | None) -> Iterator[Path]:
    if bin_dir is not None:
        yield Path(bin_dir)
        yield Path(bin_dir) / "bin"
        return
    for name in ("postgres", "pg_ctl"):
        program = shutil.which(name)
        if program:
            yield Path(program).resolve().parent
    for pattern in _PLACES:
        yield from sorted(Path("/").glob(pattern[1:]), key=_number_in, reverse=True)
    if shutil.which("pg_config"):
        yield Path(_output("pg_config", "--bindir"))


def _look_at(bin_dir: Path) -> Installation | None:
    if not os.access(bin_dir / "postgres", os.X_OK) or not os.access(bin_dir / "initdb", os.X_OK):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", _output(str(bin_dir / "postgres"), "--version"))
    if version is None:
        return None
    has_wal2json = any(
        (folder / f"wal2json{suffix}").exists() for folder in _library_folders(bin_dir) for suffix in (".so", ".dylib")
    )
    return Installation(bin_dir, int(version[1]), has_wal2json)


def _library_folders(bin_dir: Path) -> Iterator[Path]:
    pg_config = bin_dir / "pg_config"
    if os.access(pg_config, os.X_OK):
        yield Path(_output(str(pg_config), "--pkglibdir"))
    yield bin_dir.parent / "lib"
    yield bin_dir.parent / "lib" / "postgresql"


def _newest_packaged() -> int:
    """Return the newest major version that apt knows wal2json for; Debian 12's where it knows nothing yet."""
    names = _output("apt-cache", "pkgnames", "postgresql-").split()
    majors = [int(found[1]) for found in (re.fullmatch(r"postgresql-(\d+)-wal2json", name) for name in names) if found]
    return max(majors, default=OLDEST_MAJOR)


def _number_in(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", str(path))))


def _output(*command: str) -> str:
    """Run a program that only tells something; empty where it can't."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:
        return ""
