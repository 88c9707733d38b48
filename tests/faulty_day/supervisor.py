"""`Supervisor`: starts, kills and restarts the processes of the test."""

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
    from tests.faulty_day.plan import ConsumerPlan, ReaderPlan, VandalPlan, WriterPlan

ROOT = Path(__file__).parents[2]
_DUMP_S = 1.0
_KILLED = {0, -signal.SIGKILL}


class Supervisor:
    """A context manager that starts, kills and restarts processes, and kills them all on exit.

    Attributes:
        restarts: Number of times that a process was killed and restarted.
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
            process.kill()  # SIGKILL also ends a stopped process
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def start(self, name: str, module: str, plan: WriterPlan | ReaderPlan | ConsumerPlan | VandalPlan) -> None:
        """Start a process that runs `module`, under a name."""
        self._commands[name] = [sys.executable, "-m", f"tests.faulty_day.{module}", to_argument(plan)]
        self._spawn(name)

    @property
    def names(self) -> list[str]:
        """The names of the running processes."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def largest_kib(self) -> int:
        """Return the memory of the largest running process."""
        sizes = [0]
        for name in self.names:
            with contextlib.suppress(OSError, IndexError):
                pages = Path(f"/proc/{self._processes[name].pid}/statm").read_text().split()[1]
                sizes.append(int(pages) * os.sysconf("SC_PAGE_SIZE") // 1024)
        return max(sizes)

    def restart(self, name: str, after_s: float) -> None:
        """Kill a process with SIGKILL and restart it after a delay; do nothing more if it had ended by itself."""
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
        """Send a signal to a process, if it still runs."""
        with self._lock:
            self._processes[name].send_signal(number)

    def failed(self) -> list[str]:
        """Return a line for each process that ended with an error."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        return [f"{name} ended with {code}, see {self._log(name)}" for name, code in codes.items() if code]

    def wait(self, names: list[str], patience_s: float) -> list[str]:
        """Wait for processes to end; log the stacks of those still running, and return a line for each."""
        deadline = time.monotonic() + patience_s
        while (left := [name for name in names if name in self.names]) and time.monotonic() < deadline:
            if self.failed():
                break
            time.sleep(0.1)
        for name in left:
            self.signal(name, signal.SIGUSR1)
        if left:
            time.sleep(_DUMP_S)
        return [f"{name} has not ended after {patience_s:.0f} s, see {self._log(name)}" for name in left]

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
