"""Measure how a slow stream affects a fast one in the same store.

The streams run in a separate process (`python -m tests.slow_beside_fast PLAN`), so that nothing else adds to its
memory. The writer records when each commit returns, the fast stream when it has the event's data; both use the
machine's monotonic clock.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

from pgdoc import Store
from pgdoc.streams import bookmarks as history
from tests.million import resident_kib

if TYPE_CHECKING:
    from pgdoc import ChangeStream

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0
_LOOK_S = 0.1
_LOOK_EVERY = 200
_KEEP_EVERY_S = 0.5


@dataclass(frozen=True)
class Plan:
    """What is written and read.

    Attributes:
        alone: Number of changes written while only the fast stream is open.
        beside: Number of changes written while both streams are open.
        rest_s: How long the slow stream pauses after each event, until the last change is written.
        pace_s: How long the writer pauses after each change.
        text_bytes: Size of the text in each document.
    """

    conninfo: str
    schema: str
    alone: int
    beside: int
    rest_s: float
    pace_s: float
    buffer_size: int
    text_bytes: int = 2_000


@dataclass
class Found:
    """The result.

    Attributes:
        alone_ms: Latencies of the fast stream while it is alone.
        beside_ms: Latencies of the fast stream while the slow one is open.
        slow_before: Number of events that the slow stream had read when the last change was written.
        slow_in_order: Whether the slow stream read every change in order.
        left_live: Whether the slow stream was catching up at some time, instead of live.
        mode: The final modes of both streams.
        grown_kib: Growth of the process's memory while the slow stream was open.
    """

    alone_ms: list[float]
    beside_ms: list[float]
    slow_before: int
    slow_in_order: bool
    left_live: bool
    mode: list[str]
    grown_kib: int

    def __str__(self) -> str:
        alone, beside = _quantiles(self.alone_ms), _quantiles(self.beside_ms)
        return (
            f"commit to event, median and 99%: alone {alone[0]:.2f} and {alone[1]:.2f} ms, with a slow stream "
            f"{beside[0]:.2f} and {beside[1]:.2f} ms, ratio {beside[0] / alone[0]:.2f} and {beside[1] / alone[1]:.2f}; "
            f"the slow stream had read {self.slow_before} of {len(self.beside_ms)} events when the last was written; "
            f"memory grew by {self.grown_kib} KiB"
        )


def _quantiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


class Reading:
    """A context manager for the reading process; closes its store on exit."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        command = [sys.executable, "-m", "tests.slow_beside_fast", json.dumps(dataclasses.asdict(plan))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, bufsize=1
        )

    def __enter__(self) -> Self:
        assert self._read_line() == "open"
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # closes the store
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def measure(self) -> Found:
        """Write all changes and return what the streams measured."""
        plan = self._plan
        with psycopg.connect(plan.conninfo, autocommit=True) as connection:
            returned = _write(connection, plan, range(plan.alone))
            assert self._read_line() == "beside"
            returned += _write(connection, plan, range(plan.alone, plan.alone + plan.beside))
        found = json.loads(self._read_line())
        seen = found.pop("seen")
        waits = [(there - here) / 1e6 for here, there in zip(returned, seen, strict=True)]
        return Found(waits[: plan.alone], waits[plan.alone :], **found)

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _write(connection: psycopg.Connection[Any], plan: Plan, numbers: range) -> list[int]:
    """Insert documents that do not compress; return when each commit returned, in nanoseconds."""
    dice = random.Random(1)
    returned = []
    query = f"INSERT INTO {plan.schema}.orders (id, data) VALUES (%s, jsonb_build_object('n', %s::int, 'x', %s::text))"
    for number in numbers:
        connection.execute(query, [str(number), number, dice.randbytes(plan.text_bytes // 2).hex()])
        returned.append(time.monotonic_ns())
        time.sleep(plan.pace_s)
    return returned


# The reading process ---------------------------------------------------------------------------------------------


class _Slow:
    """Reads the slow stream on a separate thread until it has read everything."""

    def __init__(self, stream: ChangeStream, plan: Plan) -> None:
        self.all_written = threading.Event()
        self.count = 0
        self.in_order = True
        self.left_live = False
        self._stream, self._plan = stream, plan
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while self.count < self._plan.beside:
            event = self._stream.next(timeout=PATIENCE_S)
            if event is None or event.full_document is None:
                self.in_order = False
                return
            self.in_order = self.in_order and event.full_document.data["n"] == self._plan.alone + self.count
            self.count += 1
            if not self.all_written.is_set():
                self.left_live = self.left_live or self._stream.stats().mode == "catching_up"
                self.all_written.wait(self._plan.rest_s)


def _read(stream: ChangeStream, numbers: range) -> tuple[list[int], int]:
    """Read events; return when each was available, in nanoseconds, and the peak memory of the process."""
    seen, most_kib = [], resident_kib()
    for number in numbers:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.full_document is not None
        assert event.full_document.data["n"] == number
        seen.append(time.monotonic_ns())
        if number % _LOOK_EVERY == 0:
            most_kib = max(most_kib, resident_kib())
    return seen, most_kib


def _print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _wait_until_live(streams: list[ChangeStream]) -> list[str]:
    deadline = time.monotonic() + PATIENCE_S
    while (modes := [stream.stats().mode for stream in streams]) != ["live", "live"] and time.monotonic() < deadline:
        for stream in streams:
            stream.next(timeout=_LOOK_S)
    return modes


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    history._INTERVAL_S = _KEEP_EVERY_S
    with Store(plan.conninfo, schema=plan.schema) as store, store["orders"].watch() as fast:
        _print_line("open")
        seen, before_kib = _read(fast, range(plan.alone))
        with store["orders"].watch(buffer_size=plan.buffer_size) as slow_stream:
            slow = _Slow(slow_stream, plan)
            _print_line("beside")
            more, most_kib = _read(fast, range(plan.alone, plan.alone + plan.beside))
            slow_before = slow.count
            slow.all_written.set()
            slow.join()
            found = {
                "seen": seen + more,
                "slow_before": slow_before,
                "slow_in_order": slow.in_order and slow.count == plan.beside,
                "left_live": slow.left_live,
                "mode": _wait_until_live([fast, slow_stream]),
                "grown_kib": max(most_kib, resident_kib()) - before_kib,
            }
            _print_line(json.dumps(found))
            sys.stdin.read()


if __name__ == "__main__":
    main()
