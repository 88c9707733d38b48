"""Over 10,000 changes with the watcher killed repeatedly, no read is older than a change that was handled before it.

A reader takes the position that the watcher had stored when the read began. The test's own stream tells what each
position stands for.
"""

from __future__ import annotations

import itertools
import random
import re
import statistics
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

import pgdoc
from docs.examples import cache
from tests.examples.programs import running, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from redis import Redis

    from pgdoc import ResumeToken

CHANGES, PRODUCTS, KILLS = 10_400, 500, 5
WRITE_PAUSE_S, READ_PAUSE_S = 0.01, 0.001
LINE = re.compile(r"(\S+) \w+ p\d+: ([\d.]+) ms")

# Simulate a Redis that is short of memory: delete an entry that is older than two seconds.
DROP_OLD = "if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) - 2 then redis.call('DEL', KEYS[1]) end"


class Read(NamedTuple):
    handled: ResumeToken
    """The position that was stored when the read began."""
    product: str
    number: int | None
    """The product's number; `None` if there was no product."""
    wal_end: int
    """The end of the WAL when the read was over."""


class Writers:
    """Two writers, one through pgdoc and one in SQL. Each change has a unique number."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.numbers, self.done = dsn, itertools.count(1), 0
        self._done = threading.Lock()

    def through_pgdoc(self) -> None:
        dice = random.Random(1)
        with pgdoc.Store(self.dsn) as store:
            while self.done < CHANGES:
                with store.transaction() as tx:
                    done = sum(self._change(tx["products"], product, dice) for product in some(dice))
                self._count(done)

    def _change(self, products: pgdoc.Collection, product: str, dice: random.Random) -> bool:
        if dice.random() < 0.1:
            return products.delete(product)
        return products.update(product, {"$set": {"number": next(self.numbers)}}, upsert=True) is not None

    def in_sql(self) -> None:
        dice = random.Random(2)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while self.done < CHANGES:
                with connection.transaction():
                    done = sum(self._execute(connection, product, dice) for product in some(dice))
                self._count(done)

    def _execute(self, connection: psycopg.Connection, product: str, dice: random.Random) -> int:
        if dice.random() < 0.1:
            return connection.execute("DELETE FROM docs.products WHERE id = %s", [product]).rowcount
        return connection.execute(
            "INSERT INTO docs.products (id, data) VALUES (%s, jsonb_build_object('number', %s::int)) "
            "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
            [product, next(self.numbers)],
        ).rowcount

    def _count(self, done: int) -> None:
        with self._done:
            self.done += done
        time.sleep(WRITE_PAUSE_S)


def some(dice: random.Random) -> list[str]:
    """Choose a few products, sorted so that transactions do not deadlock."""
    return sorted({f"p{dice.randrange(PRODUCTS)}" for _ in range(dice.randint(1, 8))})


def read_on(dsn: str, redis: Redis, enough: threading.Event) -> list[Read]:
    """Read random products until `enough` is set."""
    dice, reads = random.Random(), []
    with pgdoc.Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as connection:
        while not enough.wait(READ_PAUSE_S):
            position, product = str(redis.get(cache.POSITION)), f"p{dice.randrange(PRODUCTS)}"
            data = cache.read(redis, store["products"], product)
            ((wal_end,),) = connection.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchall()
            number = data["number"] if data else None
            reads.append(Read(pgdoc.ResumeToken.parse(position), product, number, wal_end))
            redis.eval(DROP_OLD, 1, f"product:p{dice.randrange(PRODUCTS)}", cache.KEEP_S)
    return reads


def kill_again_and_again(dsn: str, url: str, redis: Redis, writers: Writers, folder: Path) -> list[Path]:
    """Run several watcher processes in turn while the writers write. Return the files of their output."""
    outputs = [folder / f"watcher{number}" for number in range(KILLS + 1)]
    for number, output in enumerate(outputs[:-1], start=1):
        with running("cache.py", dsn, url, output=output) as process:
            enough = CHANGES * number // (KILLS + 1)
            wait_until(lambda enough=enough: writers.done >= enough, process)  # type: ignore[misc]
            process.kill()
        time.sleep(0.2)
    with running("cache.py", dsn, url, output=outputs[-1]) as process:
        wait_until(lambda: writers.done >= CHANGES, process)
        with pgdoc.Store(dsn) as store:
            store["products"].insert("end", {})
        wait_until(lambda: redis.exists("product:end"), process)
        wait_until(lambda: redis.exists(cache.WATCHED), process)
    return outputs


def test_no_read_is_older_than_what_was_handled(
    dsn: str, redis: Redis, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writers, enough = Writers(dsn), threading.Event()
    with pgdoc.Store(dsn) as store, ThreadPoolExecutor(4) as pool:
        products = store["products"]
        products.insert_many((f"p{number}", {"number": 0}) for number in range(PRODUCTS))
        with running("cache.py", dsn, redis_url) as process:
            wait_until(lambda: redis.exists(cache.WATCHED), process)
        with products.watch() as stream:
            try:
                reading = [pool.submit(read_on, dsn, redis, enough) for _ in range(2)]
                writing = [pool.submit(writers.through_pgdoc), pool.submit(writers.in_sql)]
                outputs = kill_again_and_again(dsn, redis_url, redis, writers, tmp_path)
            finally:
                enough.set()
                writers.done += CHANGES
            for each in writing:
                each.result()
            history = list(itertools.takewhile(lambda event: event.document_id != "end", stream))
        reads = [read for each in reading for read in each.result()]
        now = {document.id: document.data for document in products.find()}
        redis.set(cache.WATCHED, 1)
        assert {product: cache.read(redis, products, product) for product in now} == now
    assert len(history) >= 10_000
    assert stale(reads, history) == []
    assert len(reads) > 100
    last = history[-1]
    too_old = Read(last.resume_token, str(last.document_id), 0, int(last.resume_token.lsn))
    assert stale([too_old], history) == [too_old]
    with capsys.disabled():
        print(f"\n{len(history)} changes, {len(reads)} reads, none stale; {times(outputs)}")  # noqa: T201 (figures to look at)


def stale(reads: list[Read], history: list[pgdoc.ChangeEvent]) -> list[Read]:
    """Return the reads that are older than a change that was handled before them."""
    tokens: dict[str, list[ResumeToken]] = defaultdict(list)
    numbers: dict[str, list[Any]] = defaultdict(lambda: [0])
    for event in history:
        tokens[str(event.document_id)].append(event.resume_token)
        numbers[str(event.document_id)].append(event.full_document.data["number"] if event.full_document else None)

    def is_stale(read: Read) -> bool:
        known = numbers[read.product]
        handled = bisect_right(tokens[read.product], read.handled)  # 0 is the initial product
        there_by_then = bisect_right(tokens[read.product], read.wal_end, key=lambda token: int(token.lsn))
        return read.number not in known[handled : max(handled, there_by_then) + 1]

    return [read for read in reads if is_stale(read)]


def times(outputs: list[Path]) -> str:
    """Report the time from a commit to its handling, leaving out the time in which a watcher caught up."""
    ages = []
    for output in outputs:
        found = [LINE.fullmatch(line) for line in output.read_text().splitlines()]
        handled = [(datetime.fromisoformat(line[1]), timedelta(milliseconds=float(line[2]))) for line in found if line]
        since = handled[0][0] + handled[0][1] + timedelta(seconds=1) if handled else None
        ages += [age / timedelta(milliseconds=1) for commit, age in handled if since and commit > since]
    if len(ages) < 2:
        return "no watcher had enough time to catch up"
    centiles = statistics.quantiles(ages, n=100)
    return f"from commit to handled: median {centiles[49]:.1f} ms, 99% {centiles[98]:.1f} ms of {len(ages)}"
