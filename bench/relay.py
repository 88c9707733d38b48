"""Relays: events per second into NATS JetStream, beside the stream alone; CPU of each process; latency.

    python -m bench relay [--quick] [--rounds N] [--replicas 3] [--sizes 200 2000]

Each round writes changes that wait in the slots of its peers, which then take turns, each in a process of its own.

stream      a sync consumer, read in batches, with `to_json()` of each event: what a relay can be at best
relay       `Relay` into a stream of the engine, until the engine has acknowledged all
by hand     the same messages, made before, written to a socket in the same windows: what the engine can be at best

Rates count from the opening to the last event: by the first, the buffer of a stream is full already.
The CPU is that of each process for an event, in microseconds. At the end: what PostgreSQL spends while ten processes
read the log of one relay, beside what it spends while nobody does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pgdoc
from bench.arguments import parser_of, positive
from bench.cpu_by_role import CpuByRole
from bench.harness import started
from tests.engines import NatsCluster, NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from bench.harness import Site

FILL = """
INSERT INTO docs.orders (id, data)
SELECT 'o-' || n, bench.document(n, {size}) FROM generate_series({first}, {last}) n
"""
A_TRANSACTION = 1000
WINDOW, IN_FLIGHT = 500, 4
READERS = 10
LIMIT_S = 300.0
LOOK_S = 0.05
MOMENTS, MOMENT_PAUSE_S = 500, 0.005
PEERS = ("stream", "relay", "by hand")


class Run(NamedTuple):
    """What one peer has done: its events a second, and the CPU seconds of each process."""

    rate: float
    cpu: dict[str, float]


class Setting(NamedTuple):
    """What a peer needs: the server that it reads, its consumer, the log that it writes, and how many events."""

    conninfo: str
    consumer: str
    url: str
    events: int


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="run everything with small sizes, to see that it works")
    parser.add_argument("--rounds", type=positive, help="how many rounds: 3, and 1 in a quick run")
    parser.add_argument(
        "--events", type=positive, help="how many events of each size: 100,000, and 2,000 in a quick run"
    )
    parser.add_argument("--replicas", type=int, choices=(1, 3), default=1, help="how many servers keep the stream")
    parser.add_argument("--sizes", type=positive, nargs="+", default=[200, 2000], help="bytes of a document")
    arguments = parser.parse_args()
    events = arguments.events or (2_000 if arguments.quick else 100_000)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    with started(quick=True, most_rounds=rounds) as bench, engine(arguments.replicas) as (url, pids):
        for size in arguments.sizes:
            with bench.site() as site:
                runs = measure(site, f"{url}/S{size}?replicas={arguments.replicas}", pids, (size, events, rounds))
            report(runs, size, events)
        with bench.site() as site:
            report_readers(site, f"{url}/READERS?replicas={arguments.replicas}", pids, events)
        with bench.site() as site:
            report_latency(
                site, f"{url}/LATENCY?replicas={arguments.replicas}", MOMENTS // 10 if arguments.quick else MOMENTS
            )
    return 0


@contextlib.contextmanager
def engine(replicas: int) -> Iterator[tuple[str, list[int]]]:
    """Start one server or three; yield the URL and the processes."""
    with tempfile.TemporaryDirectory(prefix="pgdoc-bench-") as folder:
        servers = NatsServer(Path(folder)) if replicas == 1 else NatsCluster(Path(folder))
        servers.start()
        try:
            yield (
                servers.url,
                [servers.pid] if isinstance(servers, NatsServer) else [each.pid for each in servers.servers],
            )
        finally:
            servers.stop()


def measure(site: Site, url: str, pids: list[int], sizes: tuple[int, int, int]) -> dict[str, list[Run]]:
    size, events, rounds = sizes
    runs: dict[str, list[Run]] = defaultdict(list)
    number = 0
    for turn in range(rounds):
        store = site.stores["wal2json"]
        for peer in PEERS[:2]:
            store.create_consumer(f"{peer}_{turn}", "orders")
        fill(site, size, number, events)
        number += events
        name, _, options = url.partition("?")
        for peer in PEERS:
            setting = Setting(site.conninfo, f"{peer}_{turn}", f"{name}_{turn}?{options}", events)
            runs[peer].append(run_peer(peer, setting, pids))
        for peer in PEERS[:2]:
            store.drop_consumer(f"{peer}_{turn}")
    return runs


def fill(site: Site, size: int, first: int, events: int) -> None:
    with site.connect("-c synchronous_commit=off") as connection:
        for number in range(first, first + events, A_TRANSACTION):
            last = min(number + A_TRANSACTION, first + events) - 1
            connection.execute(FILL.format(size=size, first=number, last=last).encode())
        connection.execute("CHECKPOINT")


def run_peer(peer: str, setting: Setting, pids: list[int]) -> Run:
    """Run a peer in a process, and look at the CPU time of all processes meanwhile."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=WORK[peer], args=(setting, there), daemon=True)
    process.start()
    here.recv()  # "begun"
    with contextlib.closing(CpuByRole(setting.conninfo, postmaster_of(setting.conninfo))) as cpu:
        for pid in pids:
            cpu.follow(pid, "engine")
        cpu.follow(process.pid or 0, peer)
        cpu.begin()
        here.send("go")
        while not here.poll(LOOK_S):
            cpu.look()
        cpu.look()
        seconds: float = here.recv()
        used = {role: spent for role, _, spent in cpu.totals()}
    here.send("end")
    process.join()
    return Run(setting.events / seconds, used)


def postmaster_of(conninfo: str) -> int:
    """Return the process of the server."""
    import psycopg  # noqa: PLC0415 (only here)

    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    return int(str(row and row[0]).split("\n", maxsplit=1)[0])


def by_stream(setting: Setting, pipe: Connection) -> None:
    with pgdoc.Store(setting.conninfo) as store:
        pipe.send("begun")
        pipe.recv()
        began = time.perf_counter()
        with store.watch("orders", consumer=setting.consumer, auto_ack=False) as stream:
            left = setting.events
            while left:
                events = stream.next_batch(WINDOW, timeout=LIMIT_S)
                for event in events:
                    event.to_json()
                left -= len(events)
            pipe.send(time.perf_counter() - began)
            pipe.recv()


def by_relay(setting: Setting, pipe: Connection) -> None:
    with pgdoc.Store(setting.conninfo) as store:
        relay = pgdoc.Relay(store, setting.consumer, setting.url, "orders")
        thread = threading.Thread(target=relay.run)
        pipe.send("begun")
        pipe.recv()
        began = time.perf_counter()
        thread.start()
        while relay.status().stored < setting.events:
            time.sleep(0.01)
        pipe.send(time.perf_counter() - began)
        pipe.recv()
        relay.stop()
        thread.join()


def by_hand(setting: Setting, pipe: Connection) -> None:
    """Send what the relay has stored once more, into a stream of its own."""
    from bench.relay_by_hand import frames_of, send  # noqa: PLC0415 (needs nats-py)

    windows = frames_of(setting.url, setting.events, WINDOW)
    pipe.send("begun")
    pipe.recv()
    with socket.create_connection(windows.address) as connection:
        began = time.perf_counter()
        send(connection, windows, IN_FLIGHT)
        pipe.send(time.perf_counter() - began)
    pipe.recv()


WORK: dict[str, Callable[[Setting, Connection], None]] = {"stream": by_stream, "relay": by_relay, "by hand": by_hand}


def report(runs: dict[str, list[Run]], size: int, events: int) -> None:
    print(f"\n{events:,} inserts of {size:,} bytes, medians of {len(runs['stream'])} rounds; CPU in us for an event")
    reference = statistics.median(run.rate for run in runs["stream"])
    print(f"{'':10}{'events/s':>12}{'to stream':>11}{'process':>10}{'walsender':>11}{'engine':>9}{'all':>8}")
    for peer, each in runs.items():
        rate = statistics.median(run.rate for run in each)
        used = [
            statistics.median(sum(spent for role, spent in run.cpu.items() if word in role) for run in each)
            * 1e6
            / events
            for word in (peer, "walsender", "engine", "")
        ]
        print(
            f"{peer:10}{rate:12,.0f}{rate / reference:11.2f}"
            + "".join(f"{us:{w}.1f}" for us, w in zip(used, (10, 11, 9, 8), strict=True))
        )


def report_readers(site: Site, url: str, pids: list[int], events: int) -> None:
    """Print what PostgreSQL spends on an event while nobody reads the relay's log, and while ten processes do."""
    from bench.relay_reading import reading  # noqa: PLC0415 (needs nats-py)

    store = site.stores["wal2json"]
    name, _, options = url.partition("?")
    for turn, readers in enumerate((0, READERS)):
        store.create_consumer(f"relay_{turn}", "orders")
        fill(site, 200, turn * events, events)
        setting = Setting(site.conninfo, f"relay_{turn}", f"{name}_{turn}?{options}", events)
        with reading(f"{name}_{turn}", events, readers):
            run = run_peer("relay", setting, pids)
        used = sum(spent for role, spent in run.cpu.items() if role.startswith("server: ")) * 1e6 / events
        print(f"{readers} processes read the log: PostgreSQL takes {used:.1f} us of CPU for an event")
        store.drop_consumer(f"relay_{turn}")


def report_latency(site: Site, url: str, moments: int) -> None:
    """Print how long it takes from the return of a commit to the message that a consumer of the stream gets."""
    from bench.relay_by_hand import arrivals  # noqa: PLC0415 (needs nats-py)

    store = site.stores["wal2json"]
    relay = pgdoc.Relay(store, "latency", url, "orders")
    thread = threading.Thread(target=relay.run)
    thread.start()
    while relay.status().state != "relaying":
        time.sleep(0.01)
    with site.connect() as connection, arrivals(url) as arrived:
        returned = []
        for n in range(moments):
            connection.execute(FILL.format(size=200, first=n, last=n).encode())
            returned.append(time.perf_counter())
            time.sleep(MOMENT_PAUSE_S)
        deadline = time.monotonic() + LIMIT_S
        while len(arrived) < moments and time.monotonic() < deadline:
            time.sleep(0.01)
    relay.stop()
    thread.join()
    store.drop_consumer("latency")
    times = sorted((late - early) * 1000 for early, late in zip(returned, arrived, strict=True))
    late = times[int(len(times) * 0.99)]
    print(f"\ncommit to a consumer of the stream, ms: median {statistics.median(times):.2f}, 99% {late:.2f}")
