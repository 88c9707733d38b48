"""How long it takes until a stream is open, and until a stream that resumes has its first event.

    python -m bench starts

A bare loop opens by creating a slot. It can resume only because a slot waits at exactly its position, and it copies
that slot here; pgdoc's streams share the few bookmarks that their history keeps.
"""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from typing import TYPE_CHECKING

import pgdoc
from bench import bare
from bench.figures import compare, in_turns
from bench.harness import flush, seconds, wal_bytes, wal_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from bench.figures import Figure
    from bench.harness import Bench, Site

MB = 1_000_000
A_STATEMENT = 500
WRITE = """
INSERT INTO {} (id, data)
SELECT %s || n, data FROM (SELECT bench.document(1, 1900) OFFSET 0) AS once (data), generate_series(1, %s::int) n
"""
BARE = "bare psycopg loop"
BEHIND = "a token right after a bookmark, this far back"
AFTER = "a token this far after a bookmark"
FAR = f"{BARE} with a slot at the bookmark"


def measure(bench: Bench) -> Iterator[Figure]:
    with bench.site() as site:
        yield from opening(bench, site)
    for megabytes in (1, 10) if bench.quick else (10, 100, 1_000):
        with bench.site() as site:
            yield from resuming(bench, site, megabytes)


def opening(bench: Bench, site: Site) -> Iterator[Figure]:
    orders, listener = site.stores["wal2json"]["orders"], "a connection that LISTENs"
    with orders.watch():
        ways = {
            BARE: lambda: ms_to_open(lambda stack: open_bare(site, stack)),
            "a stream, hub running": lambda: ms_to_open(lambda stack: stack.enter_context(orders.watch())),
            "a store and its first stream": lambda: ms_to_open(lambda stack: open_cold(site, stack)),
            listener: lambda: ms_to_open(lambda stack: stack.enter_context(site.connect()).execute("LISTEN bench")),
        }
        values = in_turns(bench.rounds(9), ways)
    yield from compare("opening", values, BARE, "ms", less_is_better=True, others=[listener])


def ms_to_open(open_in: Callable[[contextlib.ExitStack], object]) -> float:
    """Return the milliseconds until something is open; closing it does not count."""
    with contextlib.ExitStack() as stack:
        return 1000 * seconds(lambda: open_in(stack))


def open_bare(site: Site, stack: contextlib.ExitStack) -> None:
    next(stack.enter_context(contextlib.closing(bare.changes(site.conninfo))))


def open_cold(site: Site, stack: contextlib.ExitStack) -> None:
    store = stack.enter_context(pgdoc.Store(site.conninfo, plugin="wal2json"))
    stack.enter_context(store["orders"].watch())


def resuming(bench: Bench, site: Site, megabytes: int) -> Iterator[Figure]:
    """Compare resuming at both ends of a stretch of WAL, at whose beginning is the only bookmark."""
    with pgdoc.Store(site.conninfo, plugin="wal2json") as store, store["orders"].watch() as stream:
        oldest = str(stream.resume_token)
    with site.connect("-c synchronous_commit=off") as connection:
        connection.execute("CREATE TABLE bench.noise (id text PRIMARY KEY, data jsonb)")
        connection.execute("SELECT pg_create_logical_replication_slot('oldest', 'wal2json')")
        write(connection, "docs.orders", 0)
        write(connection, "bench.noise", megabytes * MB)
        newest = wal_end(connection)
        connection.execute("SELECT pg_create_logical_replication_slot('newest', 'wal2json')")
        write(connection, "docs.orders", 0)
        flush(connection)
    own_slot = f"{BARE} with a slot of its own"
    with site.stores["wal2json"]["orders"].watch():  # a store that runs; `opening` has what another one costs
        for slot, token, name in (("oldest", oldest, BEHIND), ("newest", newest, AFTER)):
            ways = {
                own_slot: partial(resume_bare, site, slot),
                name: partial(resume, site, token),
            }
            if name is AFTER:  # what the server needs by itself to decode the way
                ways[FAR] = partial(resume_bare, site, "oldest", newest)
            values = in_turns(bench.rounds(5), {name: partial(ms, way) for name, way in ways.items()})
            yield from compare("resume", values, own_slot, "ms", less_is_better=True, x=megabytes, others=[FAR])


def ms(work: Callable[[], object]) -> float:
    return 1000 * seconds(work)


def write(connection: psycopg.Connection, table: str, size: int) -> None:
    """Write documents of 2 KB, which need no TOAST, until the WAL has grown by `size`."""
    began = wal_bytes(connection)
    for batch in itertools.count():
        if batch and wal_bytes(connection) - began >= size:
            return
        connection.execute(WRITE.format(table).encode(), (f"{began}-{batch}-", A_STATEMENT))


def resume_bare(site: Site, slot: str, at: str = "0/0") -> None:
    with contextlib.closing(bare.changes(site.conninfo, source=slot, at=at)) as changes:
        next(changes)
        next(changes)


def resume(site: Site, token: str) -> None:
    with site.stores["wal2json"]["orders"].watch(resume_after=token) as stream:
        event = stream.next(timeout=60)
        _ = event and event.full_document and event.full_document.data
