"""A process with several streams: `python -m tests.faulty_day.reader PLAN`.

Each stream writes down what it read, batch by batch, and goes on from its notebook when the process is started again.
No error of an open stream is forgiven; those of opening it are, while the server or the way to it is away.
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
from tests.faulty_day.digest import KINDS, fact
from tests.faulty_day.notebook import Notebook
from tests.faulty_day.plan import MARKS, SCHEMA, SOME, ReaderPlan, StreamPlan, from_argument
from tests.faulty_day.process import is_set, settle_in

if TYPE_CHECKING:
    from pgdoc import AsyncChangeStream, ChangeEvent, ChangeStream
    from tests.faulty_day.digest import Fact

logger = logging.getLogger("reader")

_BATCH = 97  # no divisor of anything, so that tokens lie inside of transactions
_LOOK_S = 0.5
_RETRY_S = 0.3


class Course:
    """One stream's way through the day: what is the same whether it is awaited or not."""

    def __init__(self, plan: ReaderPlan, stream: StreamPlan, notebook: Notebook) -> None:
        self.stream = stream
        self.names = (*stream.collections, MARKS) if stream.collections else ()
        self.where = SOME if stream.some else None
        self.notebook = notebook
        self._folder = plan.folder
        self._dice = random.Random()

    def facts(self, events: list[ChangeEvent]) -> list[Fact]:
        """Read what the events say; other kinds than those of changes are not counted."""
        return [fact(event) for event in events if event.event_type in KINDS]

    def keep(self, facts: list[Fact], token: str) -> None:
        """Write a batch down, the end with it."""
        self.notebook.keep(facts, token, done=bool(facts) and facts[-1].collection == MARKS)

    def goes_on(self, events: list[ChangeEvent]) -> bool:
        """Whether a batch may grow."""
        return len(events) < _BATCH and events[-1].collection != MARKS

    def pause_s(self) -> float:
        """How long to rest now."""
        if not self.stream.pause_s or is_set(self._folder, "hurry"):
            return 0.0
        return self._dice.uniform(0, self.stream.pause_s)

    def failed(self, error: BaseException) -> None:
        logger.error("%s failed", self.stream.name, exc_info=error)
        self.notebook.fail(f"life {self.notebook.life}, token {self.notebook.token}: {error!r}")


def _read(store: Store, course: Course) -> None:
    while not course.notebook.done:
        try:
            stream = store.watch(
                *course.names,
                where=course.where,
                resume_after=course.notebook.token,
                buffer_size=course.stream.buffer_size,
            )
        except PgdocError as exc:
            if not exc.resumable:
                raise
            logger.info("%s is not open yet: %s", course.stream.name, exc)
            time.sleep(_RETRY_S)
            continue
        with stream:
            course.notebook.begin_life()
            course.keep([], str(stream.resume_token))
            while not course.notebook.done:
                events = _batch(stream, course)
                course.keep(course.facts(events), str(stream.resume_token))
                time.sleep(course.pause_s() if events else 0.0)


def _batch(stream: ChangeStream, course: Course) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    event = stream.next(timeout=_LOOK_S)
    while event is not None:
        events.append(event)
        event = stream.try_next() if course.goes_on(events) else None
    return events


def _read_or_fail(store: Store, course: Course) -> None:
    try:
        _read(store, course)
    except BaseException as exc:  # noqa: BLE001 (told in the notebook)
        course.failed(exc)


def run(plan: ReaderPlan, courses: list[Course]) -> None:
    with Store(plan.conninfo, schema=SCHEMA) as store:
        threads = [threading.Thread(target=_read_or_fail, args=(store, course)) for course in courses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


async def _read_async(store: AsyncStore, course: Course) -> None:
    while not course.notebook.done:
        try:
            stream = await store.watch(
                *course.names,
                where=course.where,
                resume_after=course.notebook.token,
                buffer_size=course.stream.buffer_size,
            )
        except PgdocError as exc:
            if not exc.resumable:
                raise
            logger.info("%s is not open yet: %s", course.stream.name, exc)
            await asyncio.sleep(_RETRY_S)
            continue
        async with stream:
            course.notebook.begin_life()
            course.keep([], str(stream.resume_token))
            while not course.notebook.done:
                events = await _batch_async(stream, course)
                course.keep(course.facts(events), str(stream.resume_token))
                await asyncio.sleep(course.pause_s() if events else 0.0)


async def _batch_async(stream: AsyncChangeStream, course: Course) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    event = await stream.next(timeout=_LOOK_S)
    while event is not None:
        events.append(event)
        event = await stream.try_next() if course.goes_on(events) else None
    return events


async def _read_or_fail_async(store: AsyncStore, course: Course) -> None:
    try:
        await _read_async(store, course)
    except BaseException as exc:  # noqa: BLE001 (told in the notebook)
        course.failed(exc)


async def run_async(plan: ReaderPlan, courses: list[Course]) -> None:
    async with AsyncStore(plan.conninfo, schema=SCHEMA) as store, asyncio.TaskGroup() as tasks:
        for course in courses:
            tasks.create_task(_read_or_fail_async(store, course))


def main() -> None:
    settle_in()
    plan = from_argument(ReaderPlan)
    courses = [Course(plan, stream, Notebook(Path(plan.folder, f"{stream.name}.sqlite"))) for stream in plan.streams]
    if plan.is_async:
        asyncio.run(run_async(plan, courses))
    else:
        run(plan, courses)


if __name__ == "__main__":
    main()
