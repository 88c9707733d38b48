"""Changes per second over a backlog that waits in the WAL, to `pg_recvlogical` with the same plugin and options.

    python -m bench rates

Half of the changes are inserts and half are updates with both images. All read them from the same position, and each
time includes what it takes to begin there; pgdoc's stores have been opened before, and have no other stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pgdoc
from bench import alternatives, bare
from bench.figures import compare, in_turns
from bench.harness import PLUGINS, flush, seconds, take, wal_end
from pgdoc.decoding import plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from bench.figures import Figure
    from bench.harness import Bench, Site

RECEIVE = "pg_recvlogical"
MOST_BYTES = 50_000_000  # of documents in a backlog
# Transaction 0 inserts a block of documents, transaction 1 updates it, transaction 2 inserts the next block, and so on.
FILL = """
DO $do$ BEGIN
  FOR block IN 0 .. {transactions} / 2 - 1 LOOP
    INSERT INTO docs.orders (id, data)
      SELECT 'o-' || n, bench.document(n, {size}) FROM generate_series(block * {each}, (block + 1) * {each} - 1) n;
    COMMIT;
    UPDATE docs.orders SET data = data || '{{"status": "paid"}}'
      WHERE id = ANY (ARRAY(SELECT 'o-' || n FROM generate_series(block * {each}, (block + 1) * {each} - 1) n));
    COMMIT;
  END LOOP;
END $do$
"""


@dataclass(frozen=True)
class Backlog:
    """Changes that wait in the WAL, for a slot and for streams that resume at the token."""

    site: Site
    token: pgdoc.ResumeToken
    end: str
    changes: int
    slot: str = "backlog"

    def rate(self, read: Callable[[], object]) -> float:
        return self.changes / seconds(read)


@contextlib.contextmanager
def backlog(bench: Bench, changes: int, a_transaction: int = 100, size: int = 200) -> Iterator[Backlog]:
    with bench.site() as site, site.connect("-c synchronous_commit=off -c enable_seqscan=off") as connection:
        with site.store() as store, store["orders"].watch() as stream:  # it would read on in one of the others
            token = stream.resume_token
        connection.execute("SELECT pg_create_logical_replication_slot('backlog', 'wal2json')")
        fill = FILL.format(transactions=changes // a_transaction, each=a_transaction, size=size)
        connection.execute(fill.encode())
        flush(connection)
        end = wal_end(connection)
        for store in site.stores.values():
            with store["orders"].watch():
                pass  # so that no turn includes the start of the store's reader
        yield Backlog(site, token, end, changes // a_transaction // 2 * 2 * a_transaction)


def measure(bench: Bench) -> Iterator[Figure]:
    with (
        backlog(bench, bench.size(50_000, 2_000)) as waiting,
        asyncio.Runner() as runner,
        contextlib.ExitStack() as stack,
    ):
        stores = {plugin: stack.enter_context(async_store(runner, waiting, plugin)) for plugin in PLUGINS}
        ways = {plugin: partial(run_async, runner, waiting, store) for plugin, store in stores.items()}
        yield from all_ways(bench, waiting, ways)
    for each in bench.points(1, 10, 100, 1_000):
        with backlog(bench, bench.size(20_000, 2_000), a_transaction=each) as waiting:
            yield from grown("transactions", bench, waiting, each)
    for size in bench.points(200, 2_000, 50_000):
        with backlog(bench, bench.size(min(20_000, MOST_BYTES // size), 200), size=size) as waiting:
            yield from grown("sizes", bench, waiting, size)


@contextlib.contextmanager
def async_store(runner: asyncio.Runner, waiting: Backlog, plugin: str) -> Iterator[pgdoc.AsyncStore]:
    """Return a store that reads before the time begins, as those of the sync streams do."""

    async def begin() -> None:
        async with store["orders"].watch():
            pass

    store = pgdoc.AsyncStore(waiting.site.conninfo, plugin=plugin)
    try:
        runner.run(begin())
        yield store
    finally:
        runner.run(store.close())


def all_ways(bench: Bench, waiting: Backlog, run_async: Mapping[str, Callable[[], object]]) -> Iterator[Figure]:
    ways: dict[str, Callable[[], object]] = {}
    for plugin in PLUGINS:
        ways[_named(RECEIVE, plugin)] = partial(receive, waiting, plugin)
        for name, use in USES.items():
            ways[_named(name, plugin)] = partial(read, waiting, plugin, use)
        ways[_named("asyncio, fields untouched", plugin)] = run_async[plugin]
    others = alternative_ways(bench, waiting)
    rates = in_turns(bench.rounds(), {name: partial(waiting.rate, way) for name, way in (ways | others).items()})
    for plugin in PLUGINS:
        own = {name: values for name, values in rates.items() if name.endswith(plugin) or name in others}
        yield from compare("rates", own, _named(RECEIVE, plugin), "changes/s", others=others)
        others = {}  # they read wal2json, which came first
    for name in (RECEIVE, *USES):
        pair = {name: rates[_named(name, "pgoutput")], "wal2json": rates[_named(name, "wal2json")]}
        yield from compare("plugins", pair, "wal2json", "changes/s", others=[RECEIVE])
    sizes = {"bytes that the server sends": [sent(waiting, "pgoutput")], "wal2json": [sent(waiting, "wal2json")]}
    yield from compare("plugins", sizes, "wal2json", "bytes/change", less_is_better=True)


def _named(name: str, plugin: str) -> str:
    return f"{name}, {plugin}"


def alternative_ways(bench: Bench, waiting: Backlog) -> dict[str, Callable[[], object]]:
    """Return the loops that people write themselves. They read wal2json."""
    loops: dict[str, Callable[..., Generator[Any]]] = {"bare psycopg loop, parses": bare.changes}
    if alternatives.has_psycopg2():
        loops["psycopg2 and json, parses"] = alternatives.psycopg2
    else:
        bench.skip("psycopg2", "it is not installed: pip install psycopg2-binary")
    return {name: partial(read_other, waiting, loop) for name, loop in loops.items()}


def grown(part: str, bench: Bench, waiting: Backlog, x: float) -> Iterator[Figure]:
    """Yield the rates for one size of what grows."""
    for plugin in PLUGINS:
        ways: dict[str, Callable[[], object]] = {_named(RECEIVE, plugin): partial(receive, waiting, plugin)}
        for name in ("fields untouched", "all fields read"):
            ways[_named(name, plugin)] = partial(read, waiting, plugin, USES[name])
        rates = in_turns(bench.rounds(3), {name: partial(waiting.rate, way) for name, way in ways.items()})
        yield from compare(part, rates, _named(RECEIVE, plugin), "changes/s", x=x)


def receive(waiting: Backlog, plugin: str, watched: Iterable[str] = ()) -> None:
    """Let pg_recvlogical read the backlog and write it to /dev/null; `watched` as for `wal2json_options`."""
    site = waiting.site
    options = plugins.PLUGINS[plugin].options("docs", watched=watched)
    listed = [f"--option={name}={value}" for name, value in options.items()]
    program = str(site.bin_dir / "pg_recvlogical")
    command = [program, "--dbname", site.conninfo, "--slot=copy", "--start", "--no-loop", "--file=/dev/null"]
    with site.connect() as connection:
        connection.execute("SELECT pg_copy_logical_replication_slot(%s, 'copy', false, %s)", [waiting.slot, plugin])
        subprocess.run([*command, f"--endpos={waiting.end}", *listed], check=True)
        connection.execute("SELECT pg_drop_replication_slot('copy')")


def touch_nothing(_event: pgdoc.ChangeEvent) -> None:
    pass


def read_all_fields(event: pgdoc.ChangeEvent) -> None:
    """Read all fields that an event of these changes has."""
    for document in (event.full_document, event.full_document_before_change):
        if document is not None:
            _ = document.data
    _ = event.event_type, event.document_id, event.update_description, event.timestamp, event.metadata
    _ = event.resume_token


USES: dict[str, Callable[[pgdoc.ChangeEvent], object]] = {
    "fields untouched": touch_nothing,
    "all fields read": read_all_fields,
    "to_json()": pgdoc.ChangeEvent.to_json,
}


def read(waiting: Backlog, plugin: str, use: Callable[[pgdoc.ChangeEvent], object]) -> None:
    with waiting.site.stores[plugin]["orders"].watch(resume_after=waiting.token) as stream:
        for _, event in zip(range(waiting.changes), stream, strict=False):
            use(event)


def run_async(runner: asyncio.Runner, waiting: Backlog, store: pgdoc.AsyncStore) -> None:
    runner.run(read_async(waiting, store))


async def read_async(waiting: Backlog, store: pgdoc.AsyncStore) -> None:
    async with store["orders"].watch(resume_after=waiting.token) as stream:
        left = waiting.changes
        async for _ in stream:
            left -= 1
            if left == 0:
                break


def read_other(waiting: Backlog, loop: Callable[..., Generator[Any]]) -> None:
    with contextlib.closing(loop(waiting.site.conninfo, source="backlog")) as documents:
        next(documents)
        take(waiting.changes, documents)


def sent(waiting: Backlog, plugin: str) -> float:
    """Return how many bytes the plugin sends for a change."""
    options = [word for option in plugins.PLUGINS[plugin].options("docs").items() for word in option]
    places = ", ".join(["%s"] * len(options))
    query = f"SELECT sum(length(data)) FROM pg_logical_slot_peek_binary_changes('sizes', NULL, NULL, {places})"
    with waiting.site.connect() as connection:
        connection.execute("SELECT pg_copy_logical_replication_slot('backlog', 'sizes', false, %s)", [plugin])
        row = connection.execute(query.encode(), options).fetchone()
        connection.execute("SELECT pg_drop_replication_slot('sizes')")
    return float(row[0] if row else 0) / waiting.changes
