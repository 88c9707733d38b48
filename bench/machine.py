"""What a run of the benchmark says about the machine, so that its figures can be read later."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pgdoc.server.installation import find_installation

PACKAGES = ("pgdoc", "psycopg", "orjson", "psycopg2-binary", "pymongo")
BUSY = 0.25  # of a core: what else runs then shows in the figures
ROOT = Path(__file__).parents[1]


def describe() -> dict[str, Any]:
    """Return the machine, the versions and the commit, as far as they are known."""
    postgres = find_installation(plugin="wal2json").program("postgres")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": _output(postgres, "--version").rpartition("(PostgreSQL) ")[2],
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12") or None,
    }


def load_average() -> list[float]:
    """Return the load average over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def warning(load: list[float]) -> str | None:
    """Return what to say if the machine was busy before the run began."""
    if load[0] <= BUSY:
        return None
    return f"the load average was {load[0]} before the run began: other work may have disturbed these figures"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
