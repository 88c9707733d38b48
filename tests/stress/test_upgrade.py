"""An upgrade from 18 to 18 with two databases, consumers under load, and commands that are killed again and again."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psycopg

from pgdoc import Store
from pgdoc.database.migrate import migrate
from tests.upgrades import embedded_server, upgraded

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

DATABASES = ("shop", "depot")
CONSUMERS = ("billing", "audit", "mail")
WRITES = 400
PATIENCE_S = 60.0


class Readers:
    """One thread for each consumer, which writes an effect for each event, in a transaction with its checkpoint."""

    def __init__(self, server: LocalServer) -> None:
        self._ends = threading.Event()
        self._open = threading.Semaphore(0)
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(server.conninfo_for(database), name), name=f"{database}-{name}")
            for database in DATABASES
            for name in CONSUMERS
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
        assert all(self._open.acquire(timeout=PATIENCE_S) for _ in self._threads)  # a new consumer begins now

    def __exit__(self, *exc_info: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors

    def _run(self, dsn: str, name: str) -> None:
        try:
            with Store(dsn) as store, store["orders"].watch(consumer=name) as stream:
                self._open.release()
                while not self._ends.is_set():
                    event = stream.next(timeout=0.2)
                    if event is None:
                        continue
                    with store.transaction() as tx:
                        tx.connection.execute("INSERT INTO effects VALUES (%s, %s)", [name, event.document_id])
                        stream.checkpoint(event, tx)
        except BaseException as exc:  # noqa: BLE001 (the test fails with it)
            self._errors.append(exc)


def write(server: LocalServer, start: int) -> None:
    for database in DATABASES:
        with Store(server.conninfo_for(database)) as store:
            for number in range(start, start + WRITES):
                store["orders"].insert(f"o-{number}", {"number": number})


def effects(server: LocalServer, database: str) -> dict[str, int]:
    with psycopg.connect(server.conninfo_for(database)) as sql:
        return dict(sql.execute("SELECT consumer, count(*) FROM effects GROUP BY consumer").fetchall())


def command(server: LocalServer, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pgdoc", "upgrade", *arguments, "--dsn", server.conninfo])


def kill_often(server: LocalServer, dice: random.Random, *arguments: str) -> None:
    """Run a command, and kill it after ever longer times, until it succeeds."""
    for longest_s in (0.8, 1.2, 1.6, 2.0, 2.5, 3.0):
        process = command(server, *arguments)
        try:
            assert process.wait(dice.uniform(0.6, longest_s)) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:
            return
    assert command(server, *arguments).wait(PATIENCE_S * 5) == 0


def test_consumers_under_load_go_on_after_an_upgrade_of_18() -> None:
    dice = random.Random(18)
    with embedded_server() as old:
        for database in DATABASES:
            with psycopg.connect(old.conninfo, autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {database}")
            migrate(old.conninfo_for(database))
            with psycopg.connect(old.conninfo_for(database), autocommit=True) as sql:
                sql.execute("CREATE TABLE effects (consumer text, id text, PRIMARY KEY (consumer, id))")
        with Readers(old):
            write(old, 0)
            waiting = command(old, "prepare", "--timeout", "300")  # while the consumers read on
            wait_for_all(old, WRITES)
        assert waiting.wait(PATIENCE_S * 5) == 0
        assert command(old, "prepare", "--cancel").wait(PATIENCE_S) == 0
        with Readers(old):
            write(old, WRITES)
            wait_for_all(old, 2 * WRITES)
        kill_often(old, dice, "prepare")
        with upgraded(old) as new:
            kill_often(new, dice, "finish")
            with Readers(new):
                write(new, 2 * WRITES)
                wait_for_all(new, 3 * WRITES)


def wait_for_all(server: LocalServer, count: int) -> None:
    """Wait until each consumer has had the effects of so many events; a second effect of one would have failed."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S * 10)):
        if all(effects(server, database) == dict.fromkeys(CONSUMERS, count) for database in DATABASES):
            return
        pause.wait(0.1)
    raise AssertionError([effects(server, database) for database in DATABASES])
