"""See that there is a PostgreSQL with wal2json to start; install it where that may be done: on Debian, as root.

Nothing is done where it is there already. Elsewhere the one command that mends it is printed, and the exit status is 1.
With --or-docker an engine that answers will do, since the tests can take their server from a container.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from pgdoc.installation import missing_command


def main() -> int:
    """Return the exit status."""
    if os.environ.get("PGDOC_TEST_DSN"):
        return 0
    command = missing_command()
    if command is None:
        return 0
    print("this machine has no PostgreSQL 15 or newer with wal2json")
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get update -qq")
        run(missing_command() or command)
        return 0 if missing_command() is None else 1
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
