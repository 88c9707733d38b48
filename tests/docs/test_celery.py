"""The programs of docs/how-to/celery.md: tasks are sent and run repeatedly, and each has its effect once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import pgdoc
from tests.docs.project import environment, write_files
from tests.examples.programs import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer

PAGE = "docs/how-to/celery.md"
LIMIT_S = 120
SENDER = ("-m", "pgdoc", "worker", "events:worker")
CELERY = ("-m", "celery", "-A", "tasks", "worker", "--loglevel=error", "--without-mingle", "--without-gossip")
DYING_SENDER = """
import os, signal, sys
import tasks

send, left = tasks.book.apply_async, int(sys.argv[1])

def send_and_die(*args, **options):
    global left
    send(*args, **options)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

tasks.book.apply_async = send_and_die
import events
events.worker.run()
"""
DYING_TASKS = """

end, calls, parent = pgdoc.Transaction.__exit__, 0, os.getpid()

def end_and_die(transaction, *error):
    global calls
    calls += 1
    die(when="before", call=2)
    end(transaction, *error)
    die(when="after", call=4)

def die(when, call):
    if calls == call and os.getpid() != parent and not os.path.exists(when):
        open(when, "w").close()
        os.kill(os.getpid(), 9)

pgdoc.Transaction.__exit__ = end_and_die
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(PAGE, tmp_path)
    return tmp_path


@pytest.fixture
def variables(folder: Path, dsn: str, private_redis: RedisServer) -> dict[str, str]:
    return environment(folder, PGDOC_DSN=dsn, REDIS_URL=private_redis.url)


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(dsn) as store:
        store.create_consumer("bookings", "orders")
        yield store
        store.drop_consumer("bookings")


@contextlib.contextmanager
def running(arguments: tuple[str, ...], variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, and end it with SIGTERM."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, env=variables, cwd=folder, start_new_session=True) as process:
        try:
            yield process
            process.terminate()
            assert process.wait(LIMIT_S) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_the_blocks_do_what_they_say(store: pgdoc.Store, variables: dict[str, str], folder: Path) -> None:
    with running(SENDER, variables, folder), running((*CELERY, "--concurrency=1"), variables, folder):
        command = [sys.executable, "-m", "tests.docs.run_blocks", PAGE]
        subprocess.run(command, env=variables, check=True, timeout=LIMIT_S)


def test_killed_senders_and_tasks_repeat_tasks_and_no_effect(
    store: pgdoc.Store, variables: dict[str, str], folder: Path
) -> None:
    orders = sorted(f"o-{number}" for number in range(20))
    store["orders"].insert_many((order, {"total": 1}) for order in orders)
    for sent in (1, 3):
        command = [sys.executable, "-c", DYING_SENDER, str(sent)]
        assert subprocess.run(command, env=variables, check=False, timeout=LIMIT_S).returncode == -signal.SIGKILL
    with (folder / "tasks.py").open("a") as tasks:
        tasks.write(DYING_TASKS)
    with running(SENDER, variables, folder):
        store.wait_for("bookings", timeout=LIMIT_S)
    sent = len(orders) + 3  # two senders were killed, and a process of Celery after its commit
    with running((*CELERY, "--concurrency=2"), variables, folder) as process:
        wait_until(lambda: store["bookings"].count() >= len(orders) and sum(runs(store)) >= sent, process)
    assert (folder / "before").exists()
    assert (folder / "after").exists()
    assert sorted(booking["order"] for booking in store["bookings"].find()) == orders
    assert len(runs(store)) == len(orders)


def runs(store: pgdoc.Store) -> list[int]:
    """Return how often each task has run to its end."""
    return [run["count"] for run in store["runs"].find()]
