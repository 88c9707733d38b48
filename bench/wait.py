"""Time that `wait_for` takes after a commit, in round trips of a bare `SELECT 1`.

    python -m bench wait

The reader and the writer have stores of their own, in one process. A reader whose `wait_for` is measured does nothing
with an event but acknowledge it; `exactly once` stores a document and the checkpoint for each batch.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
from typing import TYPE_CHECKING

import pgdoc
from bench.harness import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT = 100
WARM_UP = 5
EFFECTS = "effects"
PAUSE_S = 0.02


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench wait", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="how many commits to wait for")
    count = parser.parse_args().count + WARM_UP
    with (
        started(quick=True, most_rounds=1) as bench,
        bench.site() as site,
        pgdoc.Store(site.conninfo) as writer,
        site.connect() as connection,
    ):
        writer.create_collection(EFFECTS)
        bare = milliseconds(count, writer.now, lambda _: connection.execute("SELECT 1"))
        rows = [("bare SELECT 1", bare)]
        commits = milliseconds(count, writer.now, lambda _: insert(writer))
        rows.append(("a commit of one document, and now()", commits))
        for name, (begin, shares) in ways().items():
            with pgdoc.Store(site.conninfo) as store, begin(store, writer, shares) as wait:
                rows.append((name, milliseconds(count, lambda: insert(writer), wait)))
    reference = statistics.median(bare)
    print(f"{'':40}{'median ms':>10}{'99% ms':>10}{'round trips':>13}")
    for name, times in rows:
        median, worst = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"{name:40}{median:10.2f}{worst:10.2f}{median / reference:13.1f}")


def ways() -> dict[str, tuple[Callable[..., contextlib.AbstractContextManager[Callable[[pgdoc.Lsn], object]]], bool]]:
    return {
        "a consumer that keeps up": (consumer, False),
        "a consumer that shares a hub": (consumer, True),
        "a consumer, exactly once": (exactly_once, False),
        "a consumer of a quiet collection": (quiet, False),
        "a stream, stream.wait_for": (stream, False),
    }


def milliseconds(count: int, prepare: Callable[[], pgdoc.Lsn], wait: Callable[[pgdoc.Lsn], object]) -> list[float]:
    """Return how long each wait took, without the first ones."""
    times = []
    for _ in range(count):
        lsn = prepare()
        began = time.perf_counter()
        wait(lsn)
        times.append(1000 * (time.perf_counter() - began))
        time.sleep(PAUSE_S)
    return times[WARM_UP:]


def insert(store: pgdoc.Store) -> pgdoc.Lsn:
    store["orders"].insert(pgdoc.new_id(), {"total": 1})
    return store.now()


@contextlib.contextmanager
def reading(stream: pgdoc.ChangeStream, handle: Callable[[pgdoc.ChangeStream], None]) -> Iterator[None]:
    """Read a stream in a thread; the end of the block closes it."""
    thread = threading.Thread(target=handle, args=[stream])
    thread.start()
    try:
        yield
    finally:
        stream.close()
        thread.join()


def read(stream: pgdoc.ChangeStream) -> None:
    for _ in stream:
        pass


@contextlib.contextmanager
def consumer(store: pgdoc.Store, writer: pgdoc.Store, shares: bool) -> Iterator[Callable[[pgdoc.Lsn], None]]:
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(store["orders"].watch(consumer="waited"))
        if shares:
            stack.enter_context(store["others"].watch(consumer="company"))
        stack.enter_context(reading(opened, read))
        time.sleep(3)  # until it shares the hub, and the first connections are open
        yield lambda lsn: writer.wait_for("waited", lsn)


@contextlib.contextmanager
def exactly_once(store: pgdoc.Store, writer: pgdoc.Store, _: bool) -> Iterator[Callable[[pgdoc.Lsn], None]]:
    def handle(stream: pgdoc.ChangeStream) -> None:
        for events in stream.batches():
            with store.transaction() as tx:
                tx[EFFECTS].insert_many((pgdoc.new_id(), {}) for _ in events)
                stream.checkpoint(events[-1], tx)

    with store["orders"].watch(consumer="exact") as opened, reading(opened, handle):
        yield lambda lsn: writer.wait_for("exact", lsn)


@contextlib.contextmanager
def quiet(store: pgdoc.Store, writer: pgdoc.Store, _: bool) -> Iterator[Callable[[pgdoc.Lsn], None]]:
    with store["others"].watch(consumer="quiet") as opened, reading(opened, read):
        yield lambda lsn: writer.wait_for("quiet", lsn)


@contextlib.contextmanager
def stream(store: pgdoc.Store, _writer: pgdoc.Store, _: bool) -> Iterator[Callable[[pgdoc.Lsn], None]]:
    with store["orders"].watch() as opened, reading(opened, read):
        yield opened.wait_for


if __name__ == "__main__":
    main()
