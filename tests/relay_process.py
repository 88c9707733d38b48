"""A process that runs a relay, to be killed; and the account of what its log must have."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from zlib import crc32

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterable
    from signal import Signals

ROOT = Path(__file__).parents[1]
END_S = 60.0


@dataclass(frozen=True)
class RelayPlan:
    """What a process relays.

    Attributes:
        to: the URL of the log.
        names: of collections.
    """

    dsn: str
    consumer: str
    to: str
    names: tuple[str, ...] = ("orders",)
    is_async: bool = False
    snapshot: bool = False


class RelayProcess:
    """A context manager that runs a relay in a process."""

    def __init__(self, plan: RelayPlan) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.relay_process", json.dumps(asdict(plan))]
        self.plan, self.process = plan, subprocess.Popen(command, cwd=ROOT, env=environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it without any order."""
        self.process.kill()
        self.process.wait(END_S)

    def send(self, number: Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it in good order; return its exit code."""
        self.process.terminate()
        return self.process.wait(END_S)


class Account:
    """What another consumer of the same events is given: the token of each, and a checksum of its JSON.

    Args:
        names: of the collections.
    """

    def __init__(self, dsn: str, consumer: str, names: Iterable[str] = ("orders",)) -> None:
        self.events: list[tuple[str, int]] = []
        self._dsn, self._consumer, self._names = dsn, consumer, tuple(names)
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        with pgdoc.Store(self._dsn) as store:
            store.create_consumer(self._consumer, *self._names)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join(END_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with (
                pgdoc.Store(self._dsn) as store,
                store.watch(*self._names, consumer=self._consumer, auto_ack=False) as stream,
            ):
                while not self._over.is_set():
                    events = stream.next_batch(1000, timeout=0.1)
                    self.events += [(str(event.resume_token), crc32(event.to_json())) for event in events]
                    if events:
                        stream.ack(events[-1])
        except BaseException as exc:  # noqa: BLE001 (raised at the end)
            self._error = exc


def main() -> None:
    """Run the relay of the plan that is the argument."""
    logging.basicConfig(level=os.environ.get("PGDOC_RELAY_LOG", "ERROR"))
    values = json.loads(sys.argv[1])
    plan = RelayPlan(**{**values, "names": tuple(values["names"])})
    if plan.is_async:
        asyncio.run(_run_async(plan))
        return
    with pgdoc.Store(plan.dsn) as store:
        pgdoc.Relay(store, plan.consumer, plan.to, *plan.names, snapshot=plan.snapshot).run()


async def _run_async(plan: RelayPlan) -> None:
    async with pgdoc.AsyncStore(plan.dsn) as store:
        await pgdoc.AsyncRelay(store, plan.consumer, plan.to, *plan.names, snapshot=plan.snapshot).run()


if __name__ == "__main__":
    main()
