"""CPU time of the thread that uses the events, to the parsing that a bare loop does for the same changes.

    python -m bench reading

The events wait in the stream's buffer before the time begins, so nothing is read from the server meanwhile. The
reference parses each wal2json message and the document in it with orjson. The time of one thread depends little on
what else the machine does.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import orjson
import psycopg

import pgdoc
from bench.figures import compare, in_turns
from bench.harness import PLUGINS
from bench.rates import USES, backlog
from pgdoc.decoding.wal2json import wal2json_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.figures import Figure
    from bench.harness import Bench
    from bench.rates import Backlog

REFERENCE = "orjson, message and document"
MORE: dict[str, Callable[[pgdoc.ChangeEvent], object]] = {
    "document_id read": lambda event: event.document_id,
    **USES,
    "to_dict()": pgdoc.ChangeEvent.to_dict,
}


def measure(bench: Bench) -> Iterator[Figure]:
    with backlog(bench, bench.size(8_000, 1_000)) as waiting:
        messages = sent(waiting)
        ways = {REFERENCE: lambda: cpu_us(lambda: parse(messages), waiting)}
        for plugin in PLUGINS:
            for name, use in MORE.items():
                ways[f"{name}, {plugin}"] = partial(read, waiting, plugin, use)
        values = in_turns(bench.rounds(9), ways)
    yield from compare("reading", values, REFERENCE, "us/change", less_is_better=True)


def sent(waiting: Backlog) -> list[str]:
    """Return what wal2json sends for the backlog, as text."""
    options = [word for option in wal2json_options("docs").items() for word in option]
    places = ", ".join(["%s"] * len(options))
    query = f"SELECT data FROM pg_logical_slot_peek_changes('backlog', NULL, NULL, {places})"
    with psycopg.connect(waiting.site.conninfo) as connection:
        return [row[0] for row in connection.execute(query.encode(), options).fetchall()]


def parse(messages: list[str]) -> None:
    for text in messages:
        message = orjson.loads(text)
        if message["action"] in "IU":
            orjson.loads(message["columns"][1]["value"])


def read(waiting: Backlog, plugin: str, use: Callable[[pgdoc.ChangeEvent], object]) -> float:
    """Read the backlog from a full buffer; return the CPU time of this thread for each change."""
    store = waiting.site.stores[plugin]
    with store["orders"].watch(resume_after=waiting.token, buffer_size=waiting.changes + 1) as stream:
        deadline = time.monotonic() + 60
        while stream.stats().buffered < waiting.changes - 1 and time.monotonic() < deadline:
            time.sleep(0.01)

        def work() -> None:
            for _, event in zip(range(waiting.changes), stream, strict=False):
                use(event)

        return cpu_us(work, waiting)


def cpu_us(work: Callable[[], object], waiting: Backlog) -> float:
    began = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - began) / 1000 / waiting.changes
