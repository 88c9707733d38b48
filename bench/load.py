"""Measure one machine under load: many writers, and streams and consumers that all read every change in one process.

    python -m bench load --seconds=60 --writers=64 --streams=20 --consumers=5 --rate=0

The writers are pgbench's clients, in a process of its own; as in reality they would be on another machine, but here
they share the cores with the server and the readers. `--rate` is in transactions per second, 0 for as many as they can
write. `--changes` is how many documents a transaction inserts, `--buffer` how many events a reader buffers. Every
reader checks that it gets each document once, and those of one writer in order. The lag of a document is the time from
its INSERT to the reader's loop. At the end pg_recvlogical, alone, reads the same WAL: that is the rate of one
walsender.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

import pgdoc
from bench import load_by_hand
from bench.arguments import not_negative, parser_of, positive
from bench.cpu_by_role import OWN, CpuByRole
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.server import LocalServer
from pgdoc.streams.options import BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgdoc import ChangeEvent

SAMPLE_EVERY_S = 0.02
LOOK_EVERY_S = 0.5
GIVE_UP_AFTER_S = 60.0
GOAL = 0.8
SENDERS = {"server: walsender", "server: walsender of pgdoc hub docs"}  # each sends everything; others only a part
WINDOWS = 6
SCRIPT = """
\\set seq :seq + 1
INSERT INTO docs.load (id, data) SELECT :client_id::text || '-' || (:seq::int * {changes} + k)::text,
  jsonb_build_object('at', extract(epoch FROM clock_timestamp()), 'text', repeat('x', 150))
FROM generate_series(0, {changes} - 1) k
"""


@dataclass
class Plan:
    seconds: int = 60
    writers: int = 64
    streams: int = 20
    consumers: int = 5
    rate: int = 0
    changes: int = 1
    buffer: int = BUFFER_SIZE
    plugin: str = "wal2json"
    loop: bool = False
    by_hand: bool = False


@dataclass
class Reader:
    """What one reader has got; written by its thread or task only."""

    name: str
    count: int = 0
    lost: int = 0
    repeated: int = 0
    lags: list[tuple[float, float]] = field(default_factory=list)  # when a document was written, and its lag
    error: BaseException | None = None
    _last: dict[str, int] = field(default_factory=dict)
    _next_sample: float = 0.0

    @property
    def kind(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def consumer(self) -> str | None:
        return self.name.replace(" ", "_") if self.kind == "consumer" else None

    def note(self, event: ChangeEvent) -> None:
        writer, _, number = (event.document_id or "").partition("-")
        expected, found = self._last.get(writer, -1) + 1, int(number)
        self.count += 1
        if found == expected:
            self._last[writer] = found
        elif found < expected:
            self.repeated += 1
        else:
            self.lost += found - expected
            self._last[writer] = found
        now = time.time()
        if now >= self._next_sample and event.full_document is not None:
            self._next_sample = now + SAMPLE_EVERY_S
            written = float(event.full_document.data["at"])
            self.lags.append((written, now - written))


def main() -> int:
    plan = _parse()
    with LocalServer(plugin=plan.plugin, settings=settings_for(plan)) as server:
        prepare(plan, server)
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot('bench', %s)", [plan.plugin])
        result = run(plan, server)
        result.walsender = rate_of_walsender(server, plan.plugin, result.written)
    result.report()
    return 0 if result.is_complete else 1


def _parse() -> Plan:
    parser, usual = parser_of(__doc__), Plan()
    for name in ("seconds", "writers", "changes", "buffer"):
        parser.add_argument(f"--{name}", type=positive, default=getattr(usual, name), help="by default %(default)s")
    for name in ("streams", "consumers", "rate"):
        parser.add_argument(f"--{name}", type=not_negative, default=getattr(usual, name), help="by default %(default)s")
    parser.add_argument("--plugin", choices=sorted(PLUGINS), default=usual.plugin)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--loop", action="store_true", help="read in tasks of one event loop instead of threads")
    how.add_argument(
        "--by-hand", action="store_true", help="read wal2json in threads, without pgdoc: the least it takes"
    )
    return Plan(**vars(parser.parse_args()))


@dataclass
class Result:
    plan: Plan
    readers: list[Reader]
    modes: list[str]
    began: float
    written: int = 0
    writing_s: float = 0.0
    draining_s: float = 0.0
    cpu: list[tuple[str, int, float]] = field(default_factory=list)
    walsender: float = 0.0

    @property
    def is_complete(self) -> bool:
        return all(
            each.count == self.written and not each.lost + each.repeated and each.error is None for each in self.readers
        )

    def report(self) -> None:
        plan, rate = self.plan, self.written / self.writing_s
        print(
            f"{plan.writers} writers, {plan.streams} streams, {plan.consumers} consumers, {plan.plugin}: "
            f"{rate / plan.changes:,.0f} transactions/s, {rate:,.0f} changes/s for {self.writing_s:.0f} s; "
            f"all read {self.draining_s:.1f} s after that"
        )
        print(
            f"one walsender alone sends {self.walsender:,.0f} changes/s: the load is {rate / self.walsender:.0%} of it"
        )
        for kind in ("stream", "consumer"):
            self._report_lags(kind)
        total_s = self.writing_s + self.draining_s
        print(f"{'cores in use':55} {'number':>6} {'cores':>6} {'us/change':>10}")
        for role, number, used_s in self.cpu:
            if used_s >= 0.005 * total_s:
                print(f"{role:55} {number:6} {used_s / total_s:6.2f} {used_s / self.written * 1e6:10.1f}")
        print("modes at the end of writing:", ", ".join(f"{self.modes.count(m)} {m}" for m in sorted(set(self.modes))))
        self._report_capacity()
        for each in self.readers:
            if each.count != self.written or each.lost or each.repeated or each.error:
                found = f"{each.count:,} of {self.written:,}, {each.lost} lost, {each.repeated} repeated"
                print(f"{each.name}: {found}, {each.error!r}")
        print("every reader got every change once" if self.is_complete else "INCOMPLETE")

    def _report_capacity(self) -> None:
        """Say what the interpreter allows, as the threads of the reading process take turns; and what the cores do."""
        readers_s = sum(used_s for role, _, used_s in self.cpu if role.startswith(OWN) and "MainThread" not in role)
        walsender_s = sum(used_s for role, _, used_s in self.cpu if role in SENDERS)
        writers_s = sum(used_s for role, _, used_s in self.cpu if "pgbench" in role)
        most = self.written / readers_s
        print(
            f"at this cost one reading process takes {most:,.0f} changes/s at most, which are "
            f"{most * len(self.readers):,.0f} events/s, and {most / self.walsender:.0%} of what one walsender sends"
        )
        if not walsender_s:  # all have fallen behind, and read on their own
            return
        goal = GOAL * self.written / walsender_s
        cores = [goal * each / self.written for each in (writers_s, walsender_s, readers_s)]
        print(
            f"{GOAL:.0%} of the most that a walsender sends at its cost are {goal:,.0f} changes/s: "
            "at the cost of all here, {:.1f} cores for the writers, {:.1f} for the walsender, {:.1f} for the "
            "readers".format(*cores)
        )

    def _report_lags(self, kind: str) -> None:
        lags = [pair for each in self.readers if each.kind == kind for pair in each.lags]
        if not lags:
            return
        print(f"lag of the {kind}s, s, by the time of writing {'median':>10} {'90%':>8} {'99%':>8} {'most':>8}")
        step = self.writing_s / WINDOWS
        for number in range(WINDOWS):
            start = self.began + number * step
            self._report_window(
                f"{number * step:6.0f} to {(number + 1) * step:4.0f} s",
                [lag for at, lag in lags if start <= at < start + step],
            )
        self._report_window("all", [lag for _, lag in lags])

    @staticmethod
    def _report_window(name: str, lags: list[float]) -> None:
        if len(lags) > 1:
            tenths, parts = statistics.quantiles(lags, n=10), statistics.quantiles(lags, n=100)
            print(f"{name:44} {statistics.median(lags):10.3f} {tenths[8]:8.3f} {parts[98]:8.3f} {max(lags):8.3f}")


def settings_for(plan: Plan) -> dict[str, object]:
    return {"max_connections": plan.writers + 50, "shared_buffers": "256MB", "max_wal_size": "8GB"}


def prepare(plan: Plan, server: LocalServer) -> None:
    with pgdoc.Store(server.conninfo, plugin=plan.plugin) as store:
        store.migrate()
        store.create_collection("load")


def run(plan: Plan, server: LocalServer) -> Result:
    """Open the readers, write, and wait until every reader has every change, or nothing comes any more."""
    readers = [Reader(f"stream {n}") for n in range(plan.streams)]
    readers += [Reader(f"consumer {n}") for n in range(plan.consumers)]
    read = by_hand if plan.by_hand else read_on_loop if plan.loop else read_in_threads
    with (
        read(plan, server.conninfo, readers) as streams,
        contextlib.closing(CpuByRole(server.conninfo, server.pid)) as cpu,
    ):
        result = Result(plan, readers, [], time.time())
        result.written = write(plan, server, cpu)
        result.writing_s = time.time() - result.began
        result.modes = [each.stats().mode for each in streams]
        drain(result, cpu)
        result.cpu = list(cpu.totals())
    return result


def write(plan: Plan, server: LocalServer, cpu: CpuByRole) -> int:
    """Let pgbench write for the time of the plan; return the number of documents."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(SCRIPT.format(changes=plan.changes))
        script.flush()
        command: list[str | Path] = [
            server.bin_dir / "pgbench",
            "--no-vacuum",
            f"--client={plan.writers}",
            "--jobs=2",
            f"--time={plan.seconds}",
            "--protocol=prepared",
            "--define=seq=-1",
            f"--file={script.name}",
        ]
        if plan.rate:
            command.append(f"--rate={plan.rate}")
        process = subprocess.Popen([*command, server.conninfo], stdout=subprocess.PIPE, text=True)
        cpu.follow(process.pid, "writers (pgbench)")
        while process.poll() is None:
            cpu.look()
            time.sleep(LOOK_EVERY_S)
        said, _ = process.communicate()
    found = re.search(r"transactions actually processed: (\d+)", said)
    if found is None:
        raise RuntimeError(f"pgbench did not say how much it wrote: {said}")
    written = int(found[1]) * plan.changes
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute("SELECT count(*) FROM docs.load").fetchone()
    if row != (written,):
        raise RuntimeError(f"pgbench says {written} documents, the table has {row}")
    return written


def drain(result: Result, cpu: CpuByRole) -> None:
    began, best, moved, looked = time.time(), 0, time.time(), time.time()
    while any(each.count < result.written and each.error is None for each in result.readers):
        time.sleep(0.05)
        total = sum(each.count for each in result.readers)
        if total > best:
            best, moved = total, time.time()
        elif time.time() - moved > GIVE_UP_AFTER_S:
            break
        if time.time() - looked > LOOK_EVERY_S:
            cpu.look()
            looked = time.time()
    result.draining_s = time.time() - began
    time.sleep(0.5)  # a repeated event would come now
    cpu.look()


def rate_of_walsender(server: LocalServer, plugin: str, changes: int) -> float:
    """Return how many changes per second pg_recvlogical gets of the same WAL, alone, and discards."""
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    end = str(row and row[0])
    command: list[str | Path] = [server.bin_dir / "pg_recvlogical", "--dbname", server.conninfo, "--slot=bench"]
    command += ["--start", f"--endpos={end}", "--no-loop", "--file=/dev/null"]
    command += [f"--option={name}={value}" for name, value in PLUGINS[plugin].options("docs").items()]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return changes / (time.perf_counter() - began)


# The readers -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_in_threads(plan: Plan, conninfo: str, readers: list[Reader]) -> Iterator[list[pgdoc.ChangeStream]]:
    """Read each stream in a thread of its own, until the block ends."""
    with pgdoc.Store(conninfo, plugin=plan.plugin) as store:
        streams = [store["load"].watch(consumer=each.consumer, buffer_size=plan.buffer) for each in readers]
        threads = [
            threading.Thread(target=_read, args=pair, name=f"loop of a {pair[0].kind}")
            for pair in zip(readers, streams, strict=True)
        ]
        for thread in threads:
            thread.start()
        yield streams
    for thread in threads:
        thread.join()


def by_hand(
    _plan: Plan, conninfo: str, readers: list[Reader]
) -> contextlib.AbstractContextManager[list[load_by_hand.Queue]]:
    """See `bench.load_by_hand`."""
    return load_by_hand.read_by_hand(conninfo, [(f"loop of a {each.kind}", each.note) for each in readers])


def _read(reader: Reader, stream: pgdoc.ChangeStream) -> None:
    try:
        for event in stream:
            reader.note(event)
    except Exception as exc:  # noqa: BLE001 (the report says it)
        reader.error = exc


@contextlib.contextmanager
def read_on_loop(plan: Plan, conninfo: str, readers: list[Reader]) -> Iterator[list[pgdoc.AsyncChangeStream]]:
    """Read all streams in tasks of one event loop, which has a thread, until the block ends."""
    opened: Future[list[pgdoc.AsyncChangeStream]] = Future()
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()

    async def read_all() -> None:
        async with pgdoc.AsyncStore(conninfo, plugin=plan.plugin) as store:
            streams = [await store["load"].watch(consumer=each.consumer, buffer_size=plan.buffer) for each in readers]
            tasks = [asyncio.create_task(_read_async(*pair)) for pair in zip(readers, streams, strict=True)]
            opened.set_result(streams)
            await ending.wait()
        await asyncio.gather(*tasks)

    thread = threading.Thread(target=loop.run_until_complete, args=(read_all(),), name="event loop of all readers")
    thread.start()
    try:
        yield opened.result(GIVE_UP_AFTER_S)
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
        loop.close()


async def _read_async(reader: Reader, stream: pgdoc.AsyncChangeStream) -> None:
    try:
        async for event in stream:
            reader.note(event)
    except Exception as exc:  # noqa: BLE001 (the report says it)
        reader.error = exc


if __name__ == "__main__":
    sys.exit(main())
