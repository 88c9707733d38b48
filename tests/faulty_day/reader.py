"""A process with several streams: `python -m tests.faulty_day.reader PLAN`.

Each stream saves what it reads in batches, and resumes from its notebook when the process is restarted. An error of an
open stream fails the test. An error of opening one is retried if it is resumable, such as an unreachable server.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgdoc import AsyncStore, PgdocError, Store
from tests.faulty_day.digest import counts, fact
from tests.faulty_day.notebook import Notebook
from tests.faulty_day.plan import MARKS, SCHEMA, SOME, ReaderPlan, StreamPlan, from_argument
from tests.faulty_day.process import is_set, set_up_process

if TYPE_CHECKING:
    from pgdoc import AsyncChangeStream, ChangeEvent, ChangeStream
    from tests.faulty_day.digest import Fact

logger = logging.getLogger("reader")

_BATCH = 97  # prime, so that batches end, and tokens lie, inside transactions
_LOOK_S = 0.5
_RETRY_S = 0.3


class StreamJob:
    """The state of one stream; shared by the sync and async loops."""

    def __init__(self, plan: ReaderPlan, stream: StreamPlan, notebook: Notebook) -> None:
        self.stream = stream
        self.names = (*stream.collections, MARKS) if stream.collections else ()
        self.where = SOME if stream.some else None
        self.notebook = notebook
        self._folder = plan.folder
        self._dice = random.Random()

    def facts(self, events: list[ChangeEvent]) -> list[Fact]:
        """Return the content of the change events; skip other event types."""
        return [fact(event) for event in events if counts(event)]

    def keep(self, facts: list[Fact], token: str) -> None:
        """Save a batch, and whether it ends with the end mark."""
        self.notebook.keep(facts, token, done=bool(facts) and facts[-1].collection == MARKS)

    def may_grow(self, events: list[ChangeEvent]) -> bool:
        """Return whether a batch may grow."""
        return len(events) < _BATCH and events[-1].collection != MARKS

    def pause_s(self) -> float:
        """Return how long to pause now."""
        if not self.stream.pause_s or is_set(self._folder, "hurry"):
            return 0.0
        return self._dice.uniform(0, self.stream.pause_s)

    def failed(self, error: BaseException) -> None:
        logger.error("%s failed", self.stream.name, exc_info=error)
        self.notebook.fail(f"life {self.notebook.life}, token {self.notebook.token}: {error!r}")


def _read(store: Store, job: StreamJob) -> None:
    while not job.notebook.done:
        try:
            stream = store.watch(
                *job.names,
                tables=not job.names,
                where=job.where,
                resume_after=job.notebook.token,
                buffer_size=job.stream.buffer_size,
            )
        except PgdocError as exc:
            if not exc.resumable:
                raise
            logger.info("%s: retrying to open the stream: %s", job.stream.name, exc)
            time.sleep(_RETRY_S)
            continue
        with stream:
            job.notebook.begin_life()
            job.keep([], str(stream.resume_token))
            while not job.notebook.done:
                events = _batch(stream, job)
                job.keep(job.facts(events), str(stream.resume_token))
                time.sleep(job.pause_s() if events else 0.0)


def _batch(stream: ChangeStream, job: StreamJob) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    event = stream.next(timeout=_LOOK_S)
    while event is not None:
        events.append(event)
        event = stream.try_next() if job.may_grow(events) else None
    return events


def _read_or_fail(store: Store, job: StreamJob) -> None:
    try:
        _read(store, job)
    except BaseException as exc:  # noqa: BLE001 (recorded in the notebook)
        job.failed(exc)


def run(plan: ReaderPlan, jobs: list[StreamJob]) -> None:
    with Store(plan.conninfo, schema=SCHEMA) as store:
        threads = [threading.Thread(target=_read_or_fail, args=(store, job)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


async def _read_async(store: AsyncStore, job: StreamJob) -> None:
    while not job.notebook.done:
        try:
            stream = await store.watch(
                *job.names,
                tables=not job.names,
                where=job.where,
                resume_after=job.notebook.token,
                buffer_size=job.stream.buffer_size,
            )
        except PgdocError as exc:
            if not exc.resumable:
                raise
            logger.info("%s: retrying to open the stream: %s", job.stream.name, exc)
            await asyncio.sleep(_RETRY_S)
            continue
        async with stream:
            job.notebook.begin_life()
            job.keep([], str(stream.resume_token))
            while not job.notebook.done:
                events = await _batch_async(stream, job)
                job.keep(job.facts(events), str(stream.resume_token))
                await asyncio.sleep(job.pause_s() if events else 0.0)


async def _batch_async(stream: AsyncChangeStream, job: StreamJob) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    event = await stream.next(timeout=_LOOK_S)
    while event is not None:
        events.append(event)
        event = await stream.try_next() if job.may_grow(events) else None
    return events


async def _read_or_fail_async(store: AsyncStore, job: StreamJob) -> None:
    try:
        await _read_async(store, job)
    except BaseException as exc:  # noqa: BLE001 (recorded in the notebook)
        job.failed(exc)


async def run_async(plan: ReaderPlan, jobs: list[StreamJob]) -> None:
    async with AsyncStore(plan.conninfo, schema=SCHEMA) as store, asyncio.TaskGroup() as tasks:
        for job in jobs:
            tasks.create_task(_read_or_fail_async(store, job))


def main() -> None:
    set_up_process()
    plan = from_argument(ReaderPlan)
    jobs = [StreamJob(plan, stream, Notebook(Path(plan.folder, f"{stream.name}.sqlite"))) for stream in plan.streams]
    if plan.is_async:
        asyncio.run(run_async(plan, jobs))
    else:
        run(plan, jobs)


if __name__ == "__main__":
    main()
