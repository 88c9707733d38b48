"""See that the programs of docs/examples have what they work with; install it where that may be done: Debian, as root.

Else the one command that mends it is printed, and the exit status is 1.
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
}
"""Which of Debian's packages has a program."""


def main() -> int:
    """Return the exit status."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return 0
    install = ["apt-get", "install", "-y", *missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run(["apt-get", "update", "-qq"])
        run(install)
        missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        print(f"the examples need {' and '.join(missing)}; on Debian: sudo {' '.join(install)}")
    return 1 if missing else 0


def run(command: list[str]) -> None:
    """Run a command that installs something, and show that it does; what it has to complain about comes through."""
    print(f"+ {' '.join(command)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=False)


if __name__ == "__main__":
    sys.exit(main())
