"""Check for programs that some commands run, and install missing ones on Debian as root.

The arguments are their names. If it cannot install them, print the command that does, and exit with status 1; with
--or-skip, exit with status 0: the tests that need them are then skipped, and fail in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = {
    "redis-server": "redis-server",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "pgbouncer": "pgbouncer",
    "valgrind": "valgrind",
}
"""Each program, and the Debian package that contains it."""

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))  # Debian has servers there


def main() -> int:
    """Install what is missing; return the exit status."""
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")]
    missing = find_missing(wanted)
    if not missing:
        return 0
    install = ["apt-get", "install", "-y", *missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run(["apt-get", "update", "-qq"])
        run(install)
        missing = find_missing(wanted)
    if not missing:
        return 0
    print(f"this needs {', '.join(missing)}; on Debian, run: sudo {' '.join(install)}")
    return 0 if "--or-skip" in sys.argv else 1


def find_missing(programs: list[str]) -> list[str]:
    """Return the packages of the programs that this machine does not have."""
    return [PACKAGES[name] for name in programs if shutil.which(name, path=PATH) is None]


def run(command: list[str]) -> None:
    """Print a command and run it without its output; its errors are shown."""
    print(f"+ {' '.join(command)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=False)


if __name__ == "__main__":
    sys.exit(main())
