"""Run the programs of docs/examples as users do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PATIENCE_S = 60.0


@contextlib.contextmanager
def running(program: str, *arguments: str, output: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, then kill it."""
    with (
        contextlib.nullcontext() if output is None else output.open("wb") as stdout,
        subprocess.Popen([sys.executable, str(EXAMPLES / program), *arguments], stdout=stdout) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until a condition holds. Fail if `process`, which has to bring it about, ends first."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process is None or process.poll() is None, f"the program ended with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def drop_consumer(store: pgdoc.Store, name: str) -> None:
    """Drop the consumer of a program that has just been killed."""

    def is_dropped() -> bool:
        with contextlib.suppress(pgdoc.ConsumerBusy):
            return store.drop_consumer(name)
        return False

    wait_until(is_dropped)
