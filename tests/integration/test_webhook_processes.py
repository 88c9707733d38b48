"""Webhook relays in processes that are killed: nothing is missing, and only what was in flight comes twice."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson
import pytest

import pgdoc
from tests.webhook_receiver import OK, SECRET, Receiver, Reply, after

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.webhook_receiver import Received

PATIENCE_S = 60.0
CONCURRENCY = 4
BATCH = 8 * CONCURRENCY
DOCUMENTS = 20
UPDATES = 14
KILLS = 5

SYNC = """
import sys
import pgdoc
from pgdoc._sync.webhook_relay import WebhookRelay

dsn, schema, url = sys.argv[1:]
with pgdoc.Store(dsn, schema=schema) as store:
    WebhookRelay(store, "hooks", url, "orders", concurrency=4).run()
"""

ASYNC = """
import asyncio, sys
import pgdoc
from pgdoc._async.webhook_relay import AsyncWebhookRelay

async def main():
    dsn, schema, url = sys.argv[1:]
    async with pgdoc.AsyncStore(dsn, schema=schema) as store:
        await AsyncWebhookRelay(store, "hooks", url, "orders", concurrency=4).run()

asyncio.run(main())
"""


@contextlib.contextmanager
def running(code: str, dsn: str, schema: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", code, dsn, schema, url]
    process = subprocess.Popen(command, env={"PGDOC_WEBHOOK_SECRET": SECRET, "PATH": "/usr/bin:/bin"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until_taken(receiver: Receiver, number: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(receiver.taken) < number:
        assert time.monotonic() < deadline, f"only {len(receiver.taken)} of {number}"
        time.sleep(0.005)


def versions_of(taken: list[Received]) -> dict[str, list[int]]:
    """Return the versions of each document in the order in which they were taken, also those that came again."""
    found: dict[str, list[int]] = {}
    for each in taken:
        values = orjson.loads(each.body)
        found.setdefault(values["document_id"], []).append(values["full_document"]["version"])
    return found


def check(receiver: Receiver, kills: int) -> None:
    """Check that no event is missing, that documents keep their order, and how many events came again."""
    found = versions_of(receiver.taken)
    assert len(found) == DOCUMENTS
    for versions in found.values():
        assert list(dict.fromkeys(versions)) == list(range(1, UPDATES + 2))
        descents = sum(latter <= former for former, latter in pairwise(versions))
        assert descents <= kills  # inside one life, a document's events only go on
    repeats = len(receiver.taken) - DOCUMENTS * (UPDATES + 1)
    assert repeats <= kills * BATCH
    ids = {each.headers["webhook-id"] for each in receiver.taken}
    assert len(ids) == DOCUMENTS * (UPDATES + 1)
    receiver.verify()


@contextlib.contextmanager
def prepared(dsn: str, schema: str) -> Iterator[None]:
    """Write the events that the relay is to send."""
    with pgdoc.Store(dsn, schema=schema) as store:
        orders = store.create_collection("orders")
        store.create_consumer("hooks", "orders")
        try:
            orders.insert_many((f"o-{number}", {}) for number in range(DOCUMENTS))
            for update in range(UPDATES):
                orders.update_many({}, {"$set": {"n": update}})
            yield
        finally:
            store.drop_consumer("hooks")


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "async"])
def test_after_kills_no_event_is_missing_and_each_document_keeps_its_order(dsn: str, schema: str, code: str) -> None:
    rng = random.Random(20)
    total = DOCUMENTS * (UPDATES + 1)
    with prepared(dsn, schema), Receiver(after(0.002)) as receiver:
        for kill in range(KILLS):
            with running(code, dsn, schema, receiver.url):
                until_taken(receiver, total * (kill + 1) // (KILLS + 1) + rng.randrange(8))
        with running(code, dsn, schema, receiver.url):
            until_all(receiver, total)
        check(receiver, KILLS)


def test_a_standby_takes_over_from_relays_that_are_killed(dsn: str, schema: str) -> None:
    total = DOCUMENTS * (UPDATES + 1)
    with prepared(dsn, schema), Receiver(after(0.002)) as receiver, contextlib.ExitStack() as stack:
        relays = [stack.enter_context(running(code, dsn, schema, receiver.url)) for code in (SYNC, ASYNC)]
        for kill in range(2):
            until_taken(receiver, total * (kill + 1) // 4)
            for each in relays:  # whichever sends; then another stands by, or has to begin
                if each.poll() is None:
                    each.kill()
                    each.wait()
                    break
            relays.append(stack.enter_context(running(SYNC, dsn, schema, receiver.url)))
        until_all(receiver, total)
        check(receiver, 2)


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_stop_between_two_batches_sends_nothing_twice(dsn: str, schema: str, code: str) -> None:
    total = DOCUMENTS * (UPDATES + 1)
    with prepared(dsn, schema), Receiver(after(0.002)) as receiver:
        for part in range(1, 4):
            with running(code, dsn, schema, receiver.url) as process:
                until_taken(receiver, total * part // 4)
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_S) == 0
        with running(code, dsn, schema, receiver.url):
            until_all(receiver, total)
        check(receiver, 0)


def test_a_receiver_that_fails_at_random_gets_every_event_in_order(dsn: str, schema: str) -> None:
    rng = random.Random(7)

    def rule(_request: Received) -> Reply:
        return rng.choice([OK, OK, OK, Reply(500), Reply(act="cut")])

    total = DOCUMENTS * (UPDATES + 1)
    quick = "from pgdoc._sync import lane\nlane.FIRST_DELAY_S = lane.LONGEST_DELAY_S = 0.005\n"
    with prepared(dsn, schema), Receiver(rule) as receiver:
        with running(quick + SYNC.replace("concurrency=4", "concurrency=4, retries=None"), dsn, schema, receiver.url):
            until_all(receiver, total)
        check(receiver, 0)


def until_all(receiver: Receiver, total: int) -> None:
    """Wait until the receiver has every event, perhaps some of them twice."""
    deadline = time.monotonic() + PATIENCE_S
    while len({each.headers["webhook-id"] for each in receiver.taken}) < total:
        assert time.monotonic() < deadline, f"only {len(receiver.taken)} of {total}"
        time.sleep(0.02)
