"""The blocks of a page that are files of a project: those whose first line is a comment with a path."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.docs.pages import ROOT, Block, blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pgdoc

PROJECTS = {"docs/how-to/celery.md", "docs/how-to/django.md"}
"""Pages whose files import each other: a test of the same name runs them as programs."""

LIMIT_S = 120
_DYING_WORKER = """
import sys
from tests.examples.dying import Death, await_death
await_death(Death(sys.argv[1], int(sys.argv[2])))
import app
app.worker.run()
"""
_FILE = re.compile(r"# ([\w/]+\.py)\n")


def file_of(block: Block) -> str | None:
    """Return the path of the file that a block is, or is a part of."""
    found = _FILE.match(block.code)
    return found and found[1]


def write_files(page: str, folder: Path) -> None:
    """Write the files of a page; further blocks with the same path, and of a file that exists, are appended."""
    for block in blocks(page):
        if path := file_of(block):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as opened:
                opened.write(f"\n\n{block.code}")


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process that imports the files in a folder, this clone of pgdoc, and its tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), **variables}


def kill_worker(step: str, count: int, variables: dict[str, str]) -> None:
    """Run the worker of `app.py` until it is killed, when it reaches a step of `tests.examples.dying`."""
    command = [sys.executable, "-c", _DYING_WORKER, step, str(count)]
    assert subprocess.run(command, env=variables, check=False, timeout=LIMIT_S).returncode == -signal.SIGKILL


def finish_worker(store: pgdoc.Store, consumer: str, variables: dict[str, str]) -> None:
    """Run the worker of `app.py` until it has handled everything, and end it with SIGTERM."""
    with subprocess.Popen([sys.executable, "-m", "pgdoc", "worker", "app:worker"], env=variables) as process:
        try:
            store.wait_for(consumer, timeout=LIMIT_S)
            process.terminate()
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()
