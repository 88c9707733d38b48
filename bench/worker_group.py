"""Workers on a log: events per second through a handler, in one process and in several that divide the partitions.

    python -m bench worker_group [--quick] [--rounds N] [--events N] [--processes 1 3]

The events wait in a log of NATS JetStream, in eight partitions. The handler writes each event of a batch of 100 as a
document, in the transaction that stores the position. Counted is the middle third of the events: before it processes
empty buffers that were filled while they joined, and after it they read nothing more.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pgdoc
from bench.arguments import parser_of, positive
from bench.harness import started
from pgdoc.workers.failures import Postponed
from tests.engines import NatsServer
from tests.made_logs import PARTITIONS, fill

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray
    from multiprocessing.synchronize import Event

BATCH = 100
LOOK_S = 0.02
LIMIT_S = 300.0


class Setting(NamedTuple):
    """Where the effects go, which log has the events, and the group that reads it."""

    conninfo: str
    url: str
    group: str


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything with small sizes, to see that it works")
    parser.add_argument("--rounds", type=positive, help="how many rounds: 3, and 1 in a quick run")
    parser.add_argument("--events", type=positive, help="how many events: 300,000, and 900 in a quick run")
    parser.add_argument("--processes", type=positive, nargs="+", default=[1, 3], help="how many processes")
    arguments = parser.parse_args()
    events = arguments.events or (900 if arguments.quick else 300_000)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    rates: dict[int, list[float]] = {count: [] for count in arguments.processes}
    with (
        started(quick=arguments.quick, most_rounds=rounds) as bench,
        tempfile.TemporaryDirectory(prefix="pgdoc-bench-") as folder,
    ):
        server = NatsServer(Path(folder))
        server.start()
        try:
            fill(f"{server.url}/ORDERS", range(events))
            for turn in range(rounds):
                for count, found in rates.items():
                    with bench.site() as site:
                        setting = Setting(site.conninfo, f"{server.url}/ORDERS", f"g{count}_{turn}")
                        found.append(measure(setting, count, events))
        finally:
            server.stop()
    print(f"{events:,} waiting events in {PARTITIONS} partitions, batches of {BATCH}, median of {rounds} rounds")
    print(f"{'processes':>9}{'events/s':>10}")
    for count, found in rates.items():
        print(f"{count:9}{statistics.median(found):10,.0f}")
    return 0


def measure(setting: Setting, processes: int, events: int) -> float:
    """Return how many events a second the processes have handled together."""
    context = multiprocessing.get_context("spawn")
    go, over = context.Event(), context.Event()
    shares = [context.Array("q", 2) for _ in range(processes)]  # of each: its partitions, and what it has handled
    running = [context.Process(target=work, args=(setting, go, over, share), daemon=True) for share in shares]
    with pgdoc.Store(setting.conninfo) as store:
        store.create_collection("sink")
        for each in running:
            each.start()
        deadline = time.monotonic() + LIMIT_S
        try:
            while sum(share[0] for share in shares) != PARTITIONS or not all(share[0] for share in shares):
                wait(running, deadline)
            go.set()
            times: list[tuple[float, int]] = []
            for limit in (events // 3, 2 * events // 3, events):
                while (handled := sum(share[1] for share in shares)) < limit:
                    wait(running, deadline)
                times.append((time.perf_counter(), handled))
        finally:
            over.set()
            for each in running:
                each.join(LIMIT_S)
        if store["sink"].count() != events:
            raise RuntimeError(f"{store['sink'].count():,} documents for {events:,} events")
    (began, first), (ended, last), _ = times
    return (last - first) / (ended - began)


def wait(running: list[multiprocessing.context.SpawnProcess], deadline: float) -> None:
    time.sleep(LOOK_S)
    if time.monotonic() > deadline or not all(each.is_alive() for each in running):
        raise RuntimeError("the workers do not handle all events")


def work(setting: Setting, go: Event, over: Event, share: SynchronizedArray[int]) -> None:
    """Run one process: handle nothing before `go`, and end when it is `over`."""
    with pgdoc.Store(setting.conninfo) as store:
        worker = pgdoc.Worker(store, log=setting.url, start="beginning")

        @worker.on("orders", consumer=setting.group, batch=BATCH)
        def write(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
            if not go.is_set():
                raise Postponed(LOOK_S)  # a call that waits would keep the partition from another process
            tx["sink"].insert_many((pgdoc.new_id(), pgdoc.RawJson(event.to_json())) for event in events)

        thread = threading.Thread(target=worker.run)
        thread.start()
        while not over.wait(LOOK_S):
            status = worker.status()
            share[:] = sum(each.state != "standby" for each in status), sum(each.handled for each in status)
        worker.stop()
        thread.join()
