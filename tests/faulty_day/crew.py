"""The processes of a day: `Crew`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.faulty_day.plan import to_argument

if TYPE_CHECKING:
    from tests.faulty_day.plan import ConsumerPlan, ReaderPlan, WriterPlan

ROOT = Path(__file__).parents[2]
_DUMP_S = 1.0
_KILLED = {0, -signal.SIGKILL}


class Crew:
    """Starts processes, kills them, starts them again; at the end of the block none is left.

    Attributes:
        restarts: how often a process was killed and started again.
    """

    def __init__(self, folder: Path) -> None:
        self.restarts = 0
        self._folder = folder
        self._commands: dict[str, list[str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes.values():
            process.kill()  # ends one that stands still, too
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def start(self, name: str, module: str, plan: WriterPlan | ReaderPlan | ConsumerPlan) -> None:
        """Start a process under a name."""
        self._commands[name] = [sys.executable, "-m", f"tests.faulty_day.{module}", to_argument(plan)]
        self._spawn(name)

    @property
    def names(self) -> list[str]:
        """Of those that have not come to their end."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def largest_kib(self) -> int:
        """The memory of the process that has most."""
        sizes = [0]
        for name in self.names:
            with contextlib.suppress(OSError, IndexError):
                pages = Path(f"/proc/{self._processes[name].pid}/statm").read_text().split()[1]
                sizes.append(int(pages) * os.sysconf("SC_PAGE_SIZE") // 1024)
        return max(sizes)

    def restart(self, name: str, after_s: float) -> None:
        """Kill it with signal 9, and start it again after a while."""
        with self._lock:
            process = self._processes[name]
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
            if process.returncode in _KILLED:
                time.sleep(after_s)
                self._spawn(name)
                self.restarts += 1

    def signal(self, name: str, number: int) -> None:
        """Send it a signal; fine where it is gone."""
        with self._lock:
            self._processes[name].send_signal(number)

    def failed(self) -> list[str]:
        """Those that ended by themselves with an error."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        return [f"{name} ended with {code}, see {self._log(name)}" for name, code in codes.items() if code]

    def wait(self, names: list[str], patience_s: float) -> list[str]:
        """Wait until these have come to their end; give those that have not, after their stacks went to their logs."""
        deadline = time.monotonic() + patience_s
        while (left := [name for name in names if name in self.names]) and time.monotonic() < deadline:
            if self.failed():
                break
            time.sleep(0.1)
        for name in left:
            self.signal(name, signal.SIGUSR1)
        if left:
            time.sleep(_DUMP_S)
        return [f"{name} does not end, see {self._log(name)}" for name in left]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _spawn(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
