"""Check for the programs that docs/examples needs, and install missing ones on Debian as root.

If it cannot install them, print the command that does, and exit with status 1.
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
"""Each program, and the Debian package that contains it."""


def main() -> int:
    """Install what is missing; return the exit status."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return 0
    install = ["apt-get", "install", "-y", *missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run(["apt-get", "update", "-qq"])
        run(install)
        missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        print(f"the examples need {', '.join(missing)}; on Debian, run: sudo {' '.join(install)}")
    return 1 if missing else 0


def run(command: list[str]) -> None:
    """Print a command and run it without its output; its errors are shown."""
    print(f"+ {' '.join(command)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=False)


if __name__ == "__main__":
    sys.exit(main())
