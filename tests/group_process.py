"""Members of a group in processes of their own, which a test kills, pauses and adds.

Each event's effect is a row in PostgreSQL, stored together with the checkpoint. `n` is unique, so a second effect of an
event ends its process with an error; `at` has the order of the effects.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc import ConsumerLost, RemoteStream, Store
from tests.made_logs import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

EFFECTS = "CREATE TABLE effects (at bigserial PRIMARY KEY, document text NOT NULL, n integer NOT NULL UNIQUE)"
LEASE_S = 2.0
END_S = 120.0


def main() -> None:
    """Store effects until it is killed."""
    plan = json.loads(sys.argv[1])
    with (
        Store(plan["dsn"]) as store,
        RemoteStream(plan["url"], group="g", start="beginning", store=store, lease=LEASE_S, buffer_size=200) as stream,
    ):
        print("open", flush=True)  # noqa: T201 (for the test)
        for batch in stream.batches(plan["batch"]):
            with contextlib.suppress(ConsumerLost), store.transaction() as tx:
                stream.checkpoint(batch[-1], tx)  # first: a former owner gets this error, and not that of `n`
                for event in batch:
                    assert event.full_document is not None
                    values = event.document_id, event.full_document.data["n"]
                    tx.connection.execute("INSERT INTO public.effects (document, n) VALUES (%s, %s)", values)


class Members:
    """The processes that run."""

    def __init__(self, dsn: str, url: str) -> None:
        self._dsn, self._url = dsn, url
        self.running: list[subprocess.Popen[bytes]] = []
        self.failures: list[str] = []

    def add(self, batch: int) -> None:
        """Start one, and wait until it has joined."""
        plan = json.dumps({"dsn": self._dsn, "url": self._url, "batch": batch})
        command = [sys.executable, "-m", "tests.group_process", plan]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != b"open\n":
            raise AssertionError(process.stderr.read().decode())
        self.running.append(process)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End one without any order."""
        self.running.remove(process)
        if process.poll() is not None:  # it ended by itself, which none should
            self.failures.append(process.stderr.read().decode() if process.stderr else "")
        process.kill()
        process.communicate()

    @contextlib.contextmanager
    def paused(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Stop one for the length of the block."""
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all."""
        for process in [*self.running]:
            self.kill(process)


def run_group(dsn: str, url: str, *, events: int, seconds: float, seed: int, faults: int = 40) -> None:
    """Kill, pause and add members while events come, and check the effects at the end."""
    dice = random.Random(seed)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(EFFECTS)
        members = Members(dsn, url)
        begun, written = time.monotonic(), events // faults
        fill(url, range(written))
        try:
            members.add(10)
            members.add(10)
            while written < events:
                more = min(events - written, max(1, events // faults))
                fill(url, range(written, written + more))
                written += more
                _fault(members, dice, seconds / faults)
            if not members.running:
                members.add(10)
            _wait(connection, events, members)
            assert time.monotonic() - begun < END_S + 3 * seconds
        finally:
            members.close()
        assert not members.failures, members.failures[0]
        rows = connection.execute("SELECT document, n FROM effects ORDER BY at").fetchall()
    assert sorted(n for _, n in rows) == list(range(events))
    _check_order(rows)


def _fault(members: Members, dice: random.Random, pause_s: float) -> None:
    chosen = dice.choice(members.running) if members.running else None
    kind = dice.randrange(4)
    if chosen is None or (kind == 0 and len(members.running) < 5):
        members.add(dice.choice([1, 10, 50]))
    elif kind == 1 and len(members.running) > 1:
        members.kill(chosen)
    elif kind == 2:
        with members.paused(chosen):
            time.sleep(dice.choice([0.1, 1.5 * LEASE_S]))
    time.sleep(pause_s)


def _wait(connection: psycopg.Connection[Any], events: int, members: Members) -> None:
    deadline = time.monotonic() + END_S
    while True:
        ((count,),) = connection.execute("SELECT count(*) FROM effects").fetchall()
        if count >= events:
            return
        ended = [each for each in members.running if each.poll() is not None]
        for each in ended:
            members.kill(each)
        assert not members.failures, members.failures
        assert time.monotonic() < deadline, f"only {count} of {events} effects are stored"
        time.sleep(0.2)


def _check_order(rows: list[tuple[str, int]]) -> None:
    last: dict[str, int] = {}
    for document, n in rows:
        assert last.get(document, -1) < n, f"{document}: {n} came after {last[document]}"
        last[document] = n


if __name__ == "__main__":
    main()
