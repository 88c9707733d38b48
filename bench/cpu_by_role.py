"""The CPU time of this machine's processes and threads since a moment, by what they do; read from /proc (Linux)."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = "reading process: "
_TICKS = os.sysconf("SC_CLK_TCK")
_SESSIONS = "SELECT pid, backend_type, application_name FROM pg_stat_activity"
_NUMBERED = re.compile(r"[-_ ]?\d+$")


class CpuByRole:
    """Adds up CPU seconds by role: a server process's task, a thread's name, or the name given for another process.

    `look` has to be called often: what a process or thread uses after the last look before it ends is not counted.
    """

    def __init__(self, conninfo: str, postmaster: int) -> None:
        self._server = psycopg.connect(conninfo, autocommit=True, application_name="bench: looks at processes")
        self._postmaster = postmaster
        self._others: dict[int, str] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._first: dict[tuple[int, int], float] = {}
        self._last: dict[tuple[int, int], float] = {}
        self.begin()

    def begin(self) -> None:
        """Count from now."""
        self.look()
        self._first = dict(self._last)

    def close(self) -> None:
        self._server.close()

    def follow(self, pid: int, role: str) -> None:
        """Count another process, all of whose time counts."""
        self._others[pid] = role

    def look(self) -> None:
        tasks = {row[0]: _task(row[1], row[2]) for row in self._server.execute(_SESSIONS)}
        for pid in _children(self._postmaster):
            self._note((pid, 0), "server: " + tasks.get(pid, _title(pid)), Path(f"/proc/{pid}/stat"))
        for pid, role in self._others.items():
            self._note((pid, 0), role, Path(f"/proc/{pid}/stat"))
        own = os.getpid()
        for thread in threading.enumerate():
            number = thread.native_id or 0
            path = Path(f"/proc/{own}/task/{number}/stat")
            self._note((own, number), OWN + _NUMBERED.sub("", thread.name), path)

    def _note(self, key: tuple[int, int], role: str, path: Path) -> None:
        used = _cpu_s(path)
        if used is not None:
            self._last[key] = used
            self._names.setdefault(key, role)

    def totals(self) -> Iterator[tuple[str, int, float]]:
        """Yield each role, how many processes or threads had it, and their CPU seconds; most first."""
        used: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for key, last in self._last.items():
            used[self._names[key]] += last - self._first.get(key, 0.0)  # type: ignore[assignment]
            counts[self._names[key]] += 1
        for role, seconds in sorted(used.items(), key=lambda item: -item[1]):
            yield role, counts[role], seconds


def _cpu_s(path: Path) -> float | None:
    try:
        fields = path.read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def _task(kind: str, application: str) -> str:
    name = _NUMBERED.sub("", application)
    return f"{kind.replace('client backend', 'session')} of {name}" if name else kind


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ").removeprefix("postgres: ") or "?"
    except OSError:
        return "?"
