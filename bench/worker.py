"""Workers: events per second through handlers, exactly once and at least once, beside a bare stream and loops by hand.

Each way handles the same changes, which wait. A handler writes each event of a batch into a collection, and the worker
stores the position in the same transaction. A second table shows what a poisonous event in the middle costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import statistics
import sys
import threading
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pgdoc
from bench import sink
from bench.arguments import parser_of, positive
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.workers.figures import HandlerStatus

BATCHES = (1, 10, 100, 1_000)
SHARING = 4
POLL_S = 0.005
TIMEOUT_S = 600.0
HISTORY_BYTES = 20 << 30
POISONED_BATCHES = (100, 1_000)
logger = logging.getLogger("pgdoc.worker")


class Sizes(NamedTuple):
    """How many changes wait, how many of them to handle one by one, and how many when one is poisonous.

    Attributes:
        retries: of the poisonous event.
    """

    changes: int = 20_000
    one_by_one: int = 500
    poisoned: int = 100_000
    rounds: int = 3
    retries: int = 5


QUICK = Sizes(changes=400, one_by_one=20, poisoned=1_000, rounds=1, retries=1)


class Setting(NamedTuple):
    """A server with changes after a position.

    Attributes:
        poison: the document whose first change a handler refuses; it looks at no document if empty.
    """

    conninfo: str
    after: pgdoc.ResumeToken
    poison: str = ""


class Way(NamedTuple):
    """How to handle changes: how many at least, in batches of which size, in how many handlers."""

    events: int
    batch: int
    handlers: int = 1
    takes_tx: bool = True
    retries: int = 5


class Run(NamedTuple):
    """What a way has done: how many events a second, in how many seconds, and what its handlers did."""

    rate: float
    seconds: float = 0.0
    figures: tuple[HandlerStatus, ...] = ()


class Peer(NamedTuple):
    name: str
    batch: int
    measure: Callable[[str], Run]


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "words", nargs="*", help="run only what has these words in its name, and what it is compared with"
    )
    parser.add_argument("--quick", action="store_true", help="run everything with small sizes, to see that it works")
    parser.add_argument("--rounds", type=positive, help="how many rounds: 3, and 1 in a quick run")
    arguments = parser.parse_args()
    logger.setLevel(logging.CRITICAL)  # it tells of each failure
    sizes, words = QUICK if arguments.quick else Sizes(), " ".join(arguments.words)
    sizes = sizes._replace(rounds=arguments.rounds or sizes.rounds)
    measure_rates(sizes, words)
    if words in "poisonous":
        measure_poison(sizes)
    return 0


@contextlib.contextmanager
def prepared(changes: int) -> Iterator[Setting]:
    """Start a server for one round, so that the history reaches back to the beginning of the round."""
    with LocalServer(plugin="wal2json") as server:
        with pgdoc.Store(server.conninfo) as store:  # closed before the round, because its reader would take part
            after = sink.fill(server.conninfo, store, changes)
            store.set_history(timedelta(days=1), HISTORY_BYTES)
        yield Setting(server.conninfo, after)


def measure_rates(sizes: Sizes, words: str) -> None:
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(sizes.rounds):
        with prepared(sizes.changes) as setting, pgdoc.Store(setting.conninfo, schema=sink.SINKS) as sinks:
            peers = [peer for peer in all_peers(setting, sizes) if words in peer.name or peer.name in {BARE, BY_HAND}]
            for number, peer in enumerate(peers):
                name = f"sink_{number}"
                sinks.create_collection(name)
                rates.setdefault((peer.name, peer.batch), []).append(peer.measure(name).rate)
                sinks.drop_collection(name)
    report(rates, sizes)


BARE, BY_HAND = "a bare sync stream", "by hand"


def all_peers(setting: Setting, sizes: Sizes) -> Iterator[Peer]:
    yield Peer(BARE, 0, partial(read, setting, sizes.changes))
    for batch in BATCHES:
        events = sizes.one_by_one if batch == 1 else sizes.changes
        work = sink.Work(setting.after, events, batch)
        yield Peer(BY_HAND, batch, partial(by_loop, partial(sink.move_by_hand, setting.conninfo, work), events))
        yield Peer("stream", batch, partial(by_loop, partial(sink.move, setting.conninfo, work, "to_json()"), events))
        for text, way in {
            "one handler": Way(events, batch),
            f"{SHARING} handlers": Way(events, batch, SHARING),
            "at least once": Way(events, batch, takes_tx=False),
        }.items():
            yield Peer(f"Worker, {text}", batch, partial(by_worker, setting, way))
            yield Peer(f"AsyncWorker, {text}", batch, partial(by_async_worker, setting, way))


def read(setting: Setting, events: int, _name: str) -> Run:
    left = events
    with pgdoc.Store(setting.conninfo) as store, store["orders"].watch(resume_after=setting.after) as stream:
        left -= len(stream.next_batch(timeout=TIMEOUT_S))
        counted, began = left, time.perf_counter()
        while left > 0:
            left -= len(stream.next_batch(timeout=TIMEOUT_S))
    return Run(counted / (time.perf_counter() - began))


def by_loop(move: Callable[[str], float], events: int, name: str) -> Run:
    began = move(name)
    return Run((events - 1) / (time.perf_counter() - began))


def by_worker(setting: Setting, way: Way, name: str) -> Run:
    began: list[float] = []
    with pgdoc.Store(setting.conninfo) as store:
        worker = pgdoc.Worker(store)
        for number in range(way.handlers):
            handler = handler_of(began, f"{name}_{number}", setting.poison, takes_tx=way.takes_tx)
            worker.on("orders", consumer=name, batch=way.batch, name=f"{name}_{number}", retries=way.retries)(handler)
        with store["orders"].watch(consumer=name, resume_after=setting.after):
            create_sinks(store, way, name)
        thread = threading.Thread(target=worker.run)
        thread.start()
        deadline = time.monotonic() + TIMEOUT_S
        while thread.is_alive() and is_busy(worker.status(), way, deadline):
            time.sleep(POLL_S)
        run = finished(began, worker.status())
        worker.stop()
        thread.join()
        check(store, way, name, worker.status())
    return run


def by_async_worker(setting: Setting, way: Way, name: str) -> Run:
    return asyncio.run(in_loop(setting, way, name))


async def in_loop(setting: Setting, way: Way, name: str) -> Run:
    began: list[float] = []
    async with pgdoc.AsyncStore(setting.conninfo) as store:
        worker = pgdoc.AsyncWorker(store)
        for number in range(way.handlers):
            handler = async_handler_of(began, f"{name}_{number}", takes_tx=way.takes_tx)
            worker.on("orders", consumer=name, batch=way.batch, name=f"{name}_{number}")(handler)
        async with store["orders"].watch(consumer=name, resume_after=setting.after):
            with pgdoc.Store(setting.conninfo) as plain:
                create_sinks(plain, way, name)
        running = asyncio.create_task(worker.run())
        deadline = time.monotonic() + TIMEOUT_S
        while not running.done() and is_busy(worker.status(), way, deadline):  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(POLL_S)
        run = finished(began, worker.status())
        worker.stop()
        await running
    with pgdoc.Store(setting.conninfo) as plain:
        check(plain, way, name, worker.status())
    return run


def handler_of(began: list[float], name: str, poison: str, *, takes_tx: bool) -> Callable[..., None]:
    def write(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent]) -> None:
        began.append(time.perf_counter())
        if poison and any(event.document_id == poison and event.event_type == "insert" for event in events):
            raise ValueError(poison)
        if len(events) == 1:
            tx[name].insert(pgdoc.new_id(), pgdoc.RawJson(events[0].to_json()))
        else:
            tx[name].insert_many((pgdoc.new_id(), pgdoc.RawJson(event.to_json())) for event in events)

    def send(events: list[pgdoc.ChangeEvent]) -> None:
        began.append(time.perf_counter())
        for event in events:
            event.to_json()

    return write if takes_tx else send


def async_handler_of(began: list[float], name: str, *, takes_tx: bool) -> Callable[..., object]:
    async def write(tx: pgdoc.AsyncTransaction, events: list[pgdoc.ChangeEvent]) -> None:
        began.append(time.perf_counter())
        if len(events) == 1:
            await tx[name].insert(pgdoc.new_id(), pgdoc.RawJson(events[0].to_json()))
        else:
            await tx[name].insert_many((pgdoc.new_id(), pgdoc.RawJson(event.to_json())) for event in events)

    async def send(events: list[pgdoc.ChangeEvent]) -> None:
        began.append(time.perf_counter())
        for event in events:
            event.to_json()

    return write if takes_tx else send


def create_sinks(store: pgdoc.Store, way: Way, name: str) -> None:
    for number in range(way.handlers if way.takes_tx else 0):
        store.create_collection(f"{name}_{number}")


def is_busy(figures: list[HandlerStatus], way: Way, deadline: float) -> bool:
    if time.monotonic() > deadline:
        raise RuntimeError(f"the worker handles nothing more: {figures}")
    return not figures or any(each.handled + each.dead < way.events for each in figures)


def finished(began: list[float], figures: list[HandlerStatus]) -> Run:
    """Return the rate of the slowest handler."""
    seconds = time.perf_counter() - min(began)
    return Run(min(each.handled for each in figures) / seconds, seconds, tuple(figures))


def check(store: pgdoc.Store, way: Way, name: str, figures: list[HandlerStatus]) -> None:
    """Compare the effects with what the worker counted, and remove them."""
    for each in figures if way.takes_tx else ():
        found = store[each.handler].count()
        if found != each.handled:
            raise RuntimeError(f"{name}: {found:,} documents for {each.handled:,} events")
        store.drop_collection(each.handler)
    store.drop_consumer(name)


def report(rates: dict[tuple[str, int], list[float]], sizes: Sizes) -> None:
    print(f"{sizes.changes:,} waiting changes ({sizes.one_by_one:,} one by one), median of {sizes.rounds} rounds")
    print(f"{'way':34}{'batch':>7}{'events/s':>10}{'to a bare stream':>18}{'to by hand':>12}")
    for (name, batch), found in rates.items():
        print(
            f"{name:34}{f'{batch:,}' if batch else '':>7}{statistics.median(found):10,.0f}"
            f"{ratio(found, rates[BARE, 0]):18.2f}{ratio(found, rates.get((BY_HAND, batch))):12.2f}"
        )


def ratio(rates: list[float], base: list[float] | None) -> float:
    return statistics.median(map(float.__truediv__, rates, base)) if base else float("nan")


def measure_poison(sizes: Sizes) -> None:
    """Print what a poisonous event in the middle costs: to take its batch apart, and the delays of its retries."""
    middle = f"o-{sizes.poisoned // 4}"  # each order has two changes, and the handler refuses the first
    ways = {"none": ("o-none", 0), "one, retries=0": (middle, 0)}
    ways[f"one, retries={sizes.retries}"] = middle, sizes.retries
    runs: dict[tuple[str, int], list[Run]] = {}
    for _ in range(sizes.rounds):
        with prepared(sizes.poisoned) as setting:
            for number, (batch, text) in enumerate(itertools.product(POISONED_BATCHES, ways)):
                poison, retries = ways[text]
                way, found = Way(sizes.poisoned, batch, retries=retries), runs.setdefault((text, batch), [])
                found.append(by_worker(setting._replace(poison=poison), way, f"poison_{number}"))
    print(f"\na poisonous event in the middle of {sizes.poisoned:,}: median of {sizes.rounds} rounds")
    print(f"{'poisonous events':34}{'batch':>7}{'seconds':>10}{'calls':>18}{'dead':>12}")
    for (text, batch), found in runs.items():
        (figures,) = found[0].figures
        seconds = statistics.median(run.seconds for run in found)
        print(f"{text:34}{batch:7,}{seconds:10.2f}{figures.calls:18,}{figures.dead:12,}")


if __name__ == "__main__":
    sys.exit(main())
