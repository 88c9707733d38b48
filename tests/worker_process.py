"""A process that runs a worker, and can end at any step of its way; and a supervisor that starts it again.

The handlers write each event as a row of the table `public.effects`, in the transaction that they get. So the rows tell
whether each event had its effect exactly once, and in which order.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

import pgdoc
from pgdoc.consumers import owned_slot, ownership

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
CONSUMER = "worker"

EFFECTS = """
CREATE TABLE public.effects (
  id bigserial PRIMARY KEY, handler text NOT NULL, document_id text NOT NULL, n integer NOT NULL, pid integer NOT NULL
)
"""
_INSERT = "INSERT INTO public.effects (handler, document_id, n, pid) VALUES (%s, %s, %s, %s)"

# Each step: what is called there, and whether the process ends before or after it.
STEPS = {
    "before the begin": ("lane_rows", "LaneRows.begin", "before"),
    "after the begin": ("lane_rows", "LaneRows.begin", "after"),
    "after a batch is taken": ("lane", "Lane._handle", "before"),
    "before the call": ("lane", "Lane._call", "before"),
    "after the call": ("lane", "Lane._call", "after"),
    "before the position is saved": ("lane_rows", "LaneRows.save", "before"),
    "before the commit": ("lane_rows", "LaneRows.save", "after"),
    "after the commit": ("lane_rows", "LaneRows.note_saved", "before"),
    "after a batch": ("lane", "Lane._handle", "after"),
    "before a letter is stored": ("lane_rows", "LaneRows.put_letter", "before"),
    "after a letter is stored": ("lane_rows", "LaneRows.put_letter", "after"),
    "before the checkpoint": ("worker_consumer", "checkpoint", "before"),
    "before the commit of the checkpoint": ("worker_consumer", "checkpoint", "after"),
    "after the checkpoint": ("worker_consumer", "WorkerConsumer._checkpoint", "after"),
    "before a letter is removed": ("lane_rows", "LaneRows.remove_letter", "before"),
    "after a letter is removed": ("lane_rows", "LaneRows.remove_letter", "after"),
}

GROUP_STEPS = {"before the commit of a group": ("group_lane_rows", "GroupLaneRows.save", "after")}


@dataclass(frozen=True)
class Plan:
    """What a process runs, and where it ends.

    Attributes:
        handlers: their names; several share the consumer.
        bad: the documents at which the handlers raise.
        deadly: the documents at which the first handler ends the process.
        step: where the process ends, at the `at`-th time; "" for nowhere.
        freezes: whether it stops there instead, as if its machine fell silent.
        lease_s: for how long an owner may be silent; 0 for what pgdoc does.
        log: the URL of the log that has the events; "" for the server's own stream. The consumer is then a group.
    """

    dsn: str
    handlers: tuple[str, ...] = ("one",)
    is_async: bool = False
    takes_one: bool = False
    batch: int = 20
    retries: int = 1
    on_dead: str = "continue"
    bad: tuple[str, ...] = ()
    deadly: tuple[str, ...] = ()
    cautious_after: int = 3
    step: str = ""
    at: int = 1
    freezes: bool = False
    lease_s: int = 0
    pause_s: float = 0.0
    log: str = ""


class Child:
    """A context manager that runs a plan in a process."""

    def __init__(self, plan: Plan) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.worker_process", json.dumps(asdict(plan))]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def has_frozen(self) -> bool:
        """Whether the process is stopped."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] == "T"

    def thaw(self) -> None:
        """Let a process that is stopped go on."""
        self.process.send_signal(signal.SIGCONT)

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """End it without a chance to do anything."""
        with self.process as process:
            process.kill()

    def stop(self, timeout_s: float = 60.0) -> int:
        """Let it end in good order, and return its exit status."""
        self.process.terminate()
        status = self.process.wait(timeout_s)
        self.kill()
        return status


@dataclass
class Ledger:
    """What was written, and what became of it."""

    dsn: str
    written: list[tuple[str, int]] = field(default_factory=list)
    _versions: Counter[str] = field(default_factory=Counter)

    def write(self, store: pgdoc.Store, documents: list[str]) -> None:
        """Insert or update documents in one transaction: each gets its next `n`."""
        with store.transaction() as tx:
            for each in documents:
                self._versions[each] += 1
                number = self._versions[each]
                if number == 1:
                    tx["orders"].insert(each, {"n": number})
                else:
                    tx["orders"].update(each, {"$set": {"n": number}})
                self.written.append((each, number))

    def versions(self) -> dict[str, int]:
        """Return the last `n` of each document."""
        return dict(self._versions)

    def restore(self, written: list[tuple[str, int]], versions: dict[str, int], store: pgdoc.Store) -> None:
        """Note after a transaction that failed whether it is stored, once the server tells."""
        deadline = time.monotonic() + 60
        document_id, number = self.written[-1] if len(self.written) > len(written) else ("", 0)
        asked = dict(self._versions)
        while True:
            try:
                found = store["orders"].get(document_id) if document_id else None
            except pgdoc.PgdocError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                break
        if found is None or found.data["n"] < number:
            self.written[:] = written
            asked = versions
        self._versions = Counter(asked)

    def effects(self, handler: str) -> list[tuple[str, int]]:
        """Return the effects of a handler, in their order."""
        rows = self._ask("SELECT document_id, n FROM public.effects WHERE handler = %s ORDER BY id", handler)
        return [(str(document_id), int(n)) for document_id, n in rows]

    def letters(self, handler: str) -> list[tuple[str, int]]:
        """Return the events of the dead letters of a handler, in their order."""
        rows = self._ask(
            "SELECT document_id, event -> 'full_document' -> 'data' ->> 'n' FROM pgdoc.dead_letters WHERE handler = %s "
            "ORDER BY id",
            handler,
        )
        return [(str(document_id), int(n)) for document_id, n in rows]

    def is_done(self, *handlers: str) -> bool:
        """Whether each handler has processed everything; more than that counts, too."""
        query = (
            "SELECT (SELECT count(*) FROM public.effects WHERE handler = %s) "
            "+ (SELECT count(*) FROM pgdoc.dead_letters WHERE handler = %s)"
        )
        return all(self._ask(query, each, each)[0][0] >= len(self.written) for each in handlers)

    def check(self, *handlers: str, in_order: bool = True) -> None:
        """Check that each event has one effect or one letter, and that those of a document have their order."""
        for each in handlers:
            effects, letters = self.effects(each), self.letters(each)
            found, wanted = Counter(effects + letters), Counter(self.written)
            assert not wanted - found, f"{each}: lost {sorted(wanted - found)[:5]}"
            assert not found - wanted, f"{each}: repeated {sorted(found - wanted)[:5]}"
            for events in (effects, letters) if in_order else ():
                seen: dict[str, int] = {}
                for document_id, number in events:
                    assert seen.get(document_id, 0) < number, f"{each}: {document_id} has {number} after {seen}"
                    seen[document_id] = number

    def _ask(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(query, params).fetchall()


def run_until(
    is_done: Callable[[], bool],
    plans: Callable[[int], Plan],
    *,
    patience_s: float = 120.0,
    least: int = 0,
    more: Callable[[], None] | None = None,
) -> int:
    """Run one process after the other until all is done, at least so many; return how many ended by themselves.

    Args:
        is_done: whether the processes have nothing to do.
        plans: returns what the next process runs, given how many have ended.
        patience_s: how long this may take.
        least: so many must end by themselves.
        more: gives a process that must end, and has not come to its step yet, something to do.
    """
    deadline, ended = time.monotonic() + patience_s, 0
    while True:
        with Child(plans(ended)) as child:
            while not child.is_over:
                assert time.monotonic() < deadline, f"not done after {ended} processes"
                if ended >= least and is_done():
                    assert child.stop() == 0
                    return ended
                if more is not None and ended < least and is_done():
                    more()
                time.sleep(0.05)
        ended += 1


def main() -> None:
    """Run the plan of the command line."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    options: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    plan = Plan(**options)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _set_up(plan)
    if plan.is_async:
        asyncio.run(_run_async(plan))
    else:
        _run(plan)


def _end_with_parent() -> None:
    while os.read(0, 1):  # until it is closed
        pass
    os._exit(4)


def _set_up(plan: Plan) -> None:
    package = "_async" if plan.is_async else "_sync"
    lane: Any = importlib.import_module(f"pgdoc.{package}.lane")
    lane.FIRST_DELAY_S, lane.LONGEST_DELAY_S, lane.CAUTIOUS_AFTER = 0.01, 0.05, plan.cautious_after
    consumer: Any = importlib.import_module(f"pgdoc.{package}.worker_consumer")
    consumer.CHECKPOINT_S, consumer.LETTERS_S, consumer.FIRST_DELAY_S = 0.05, 0.1, 0.1
    if plan.lease_s:
        vars(ownership)["LEASE_S"], vars(owned_slot)["HEARTBEAT_S"] = plan.lease_s, plan.lease_s / 10
        group: Any = importlib.import_module(f"pgdoc.{package}.worker_group")
        group.LEASE_S, group.FIRST_DELAY_S, group.LONGEST_DELAY_S = plan.lease_s, 0.1, 1.0
    if plan.step:
        module_name, path, moment = (STEPS | GROUP_STEPS)[plan.step]
        module = importlib.import_module(f"pgdoc.{package}.{module_name}")
        *owners, name = path.split(".")
        owner = module
        for each in owners:
            owner = getattr(module, f"Async{each}" if plan.is_async else each)
        setattr(owner, name, _deadly(getattr(owner, name), moment, plan))


def _deadly(function: Any, moment: str, plan: Plan) -> Any:
    """Return the function, which ends or stops the process before or after its `at`-th call."""
    calls = Counter[str]()

    def note(where: str) -> None:
        if where == moment:
            calls[where] += 1
            if calls[where] == plan.at:
                os.kill(os.getpid(), signal.SIGSTOP if plan.freezes else signal.SIGKILL)

    async def called_async(*args: Any, **kwargs: Any) -> Any:
        note("before")
        result = await function(*args, **kwargs)
        note("after")
        return result

    def called(*args: Any, **kwargs: Any) -> Any:
        note("before")
        result = function(*args, **kwargs)
        note("after")
        return result

    return called_async if asyncio.iscoroutinefunction(function) else called


def _row(plan: Plan, handler: str, event: pgdoc.ChangeEvent) -> tuple[Any, ...]:
    assert event.full_document is not None
    if event.document_id in plan.deadly and handler == plan.handlers[0]:
        os._exit(9)
    if event.document_id in plan.bad:
        raise ValueError(f"no {event.document_id}")
    return handler, event.document_id, event.full_document.data["n"], os.getpid()


def _run(plan: Plan) -> None:
    with pgdoc.Store(plan.dsn) as store:
        worker = pgdoc.Worker(store, log=plan.log or None, start="beginning", shutdown_timeout=20)
        for each in plan.handlers:

            def handle_one(tx: pgdoc.Transaction, event: pgdoc.ChangeEvent, name: str = each) -> None:
                tx.connection.execute(_INSERT, _row(plan, name, event))
                time.sleep(plan.pause_s)

            def handle(tx: pgdoc.Transaction, events: list[pgdoc.ChangeEvent], name: str = each) -> None:
                for event in events:
                    tx.connection.execute(_INSERT, _row(plan, name, event))
                time.sleep(plan.pause_s)

            _register(worker, plan, each)(handle_one if plan.takes_one else handle)
        worker.run()


async def _run_async(plan: Plan) -> None:
    async with pgdoc.AsyncStore(plan.dsn) as store:
        worker = pgdoc.AsyncWorker(store, log=plan.log or None, start="beginning", shutdown_timeout=20)
        for each in plan.handlers:

            async def handle_one(tx: pgdoc.AsyncTransaction, event: pgdoc.ChangeEvent, name: str = each) -> None:
                await tx.connection.execute(_INSERT, _row(plan, name, event))
                await asyncio.sleep(plan.pause_s)

            async def handle(tx: pgdoc.AsyncTransaction, events: list[pgdoc.ChangeEvent], name: str = each) -> None:
                for event in events:
                    await tx.connection.execute(_INSERT, _row(plan, name, event))
                await asyncio.sleep(plan.pause_s)

            _register(worker, plan, each)(handle_one if plan.takes_one else handle)
        await worker.run()


def _register(worker: pgdoc.Worker | pgdoc.AsyncWorker, plan: Plan, name: str) -> Any:
    return worker.on(
        "orders", consumer=CONSUMER, batch=plan.batch, retries=plan.retries, on_dead=plan.on_dead, name=name
    )


if __name__ == "__main__":
    main()
