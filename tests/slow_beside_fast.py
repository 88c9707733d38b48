"""One stream that rests after each event beside one that keeps up: `measure`, and the program that reads.

The streams share a store, in a process of their own (`python -m tests.slow_beside_fast PLAN`), so that nothing else
counts in its memory. The writer notes when each commit has returned, the fast stream when it holds the event's data;
both read the machine's monotonic clock.
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
    """What is read.

    Attributes:
        alone: changes that are written while there is only the fast stream.
        beside: changes that are written while the slow one is there.
        rest_s: how long that one rests after each event, until the last change was written.
        pace_s: what the writer rests after each change.
        text_bytes: of each document.
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
    """What came out.

    Attributes:
        alone_ms: latencies of the fast stream, by itself.
        beside_ms: the same, with the slow one there.
        slow_before: events that the slow one had when the last change was written.
        slow_in_order: whether it had every change, each at its place.
        went_away: whether it left the hub meanwhile.
        mode: how both are fed in the end.
        grown_kib: memory that came on top while the slow one was there.
    """

    alone_ms: list[float]
    beside_ms: list[float]
    slow_before: int
    slow_in_order: bool
    went_away: bool
    mode: list[str]
    grown_kib: int

    def __str__(self) -> str:
        alone, beside = _quantiles(self.alone_ms), _quantiles(self.beside_ms)
        return (
            f"commit to event, median and 99%: alone {alone[0]:.2f} and {alone[1]:.2f} ms, beside a slow stream "
            f"{beside[0]:.2f} and {beside[1]:.2f} ms, ratio {beside[0] / alone[0]:.2f} and {beside[1] / alone[1]:.2f}; "
            f"the slow one had {self.slow_before} events by then, of {len(self.beside_ms)}; "
            f"memory grew by {self.grown_kib} KiB"
        )


def _quantiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


class Reading:
    """The process that reads; a context manager, at whose end its store is closed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        command = [sys.executable, "-m", "tests.slow_beside_fast", json.dumps(dataclasses.asdict(plan))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, bufsize=1
        )

    def __enter__(self) -> Self:
        assert self._hear() == "open"
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
        """Write everything, and tell what the streams made of it."""
        plan = self._plan
        with psycopg.connect(plan.conninfo, autocommit=True) as connection:
            returned = _write(connection, plan, range(plan.alone))
            assert self._hear() == "beside"
            returned += _write(connection, plan, range(plan.alone, plan.alone + plan.beside))
        found = json.loads(self._hear())
        seen = found.pop("seen")
        waits = [(there - here) / 1e6 for here, there in zip(returned, seen, strict=True)]
        return Found(waits[: plan.alone], waits[plan.alone :], **found)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _write(connection: psycopg.Connection[Any], plan: Plan, numbers: range) -> list[int]:
    """Insert documents that don't compress; give when each commit had returned."""
    dice = random.Random(1)
    returned = []
    query = f"INSERT INTO {plan.schema}.orders (id, data) VALUES (%s, jsonb_build_object('n', %s::int, 'x', %s::text))"
    for number in numbers:
        connection.execute(query, [str(number), number, dice.randbytes(plan.text_bytes // 2).hex()])
        returned.append(time.monotonic_ns())
        time.sleep(plan.pace_s)
    return returned


# The process that reads ---------------------------------------------------------------------------------------------


class _Slow:
    """The slow stream, in a thread of its own; it ends when it has read everything."""

    def __init__(self, stream: ChangeStream, plan: Plan) -> None:
        self.all_written = threading.Event()
        self.count = 0
        self.in_order = True
        self.went_away = False
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
                self.went_away = self.went_away or self._stream.stats().mode == "catching_up"
                self.all_written.wait(self._plan.rest_s)


def _read(stream: ChangeStream, numbers: range) -> tuple[list[int], int]:
    """Give when each event was there, and the most memory that the process had."""
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


def _say(text: str) -> None:
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
        _say("open")
        seen, before_kib = _read(fast, range(plan.alone))
        with store["orders"].watch(buffer_size=plan.buffer_size) as slow_stream:
            slow = _Slow(slow_stream, plan)
            _say("beside")
            more, most_kib = _read(fast, range(plan.alone, plan.alone + plan.beside))
            slow_before = slow.count
            slow.all_written.set()
            slow.join()
            found = {
                "seen": seen + more,
                "slow_before": slow_before,
                "slow_in_order": slow.in_order and slow.count == plan.beside,
                "went_away": slow.went_away,
                "mode": _wait_until_live([fast, slow_stream]),
                "grown_kib": max(most_kib, resident_kib()) - before_kib,
            }
            _say(json.dumps(found))
            sys.stdin.read()


if __name__ == "__main__":
    main()
