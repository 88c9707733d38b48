"""Events a second from one collection into another, exactly once, against the same work by hand, in turns.

    python -m bench.sink [SUBSTRING OF A PEER'S NAME]

Each peer reads the same waiting changes of 200-byte documents, half inserts and half updates, and writes one document
for each into an empty collection of another schema, which the reader need not read again. A batch and the reader's
position commit together. By hand means a replication
connection with wal2json, orjson, and COPY in a transaction, which also updates the position in a table of its own; it
computes no difference and writes the documents' text as the server sent it. The store that does not wait for the disk
has `synchronous_commit = off`; it writes `to_json()`, as the async one does. Each rate counts from the first event to
the last commit, and each count of documents is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import psycopg
from psycopg.conninfo import make_conninfo

import pgdoc
from bench.arguments import selected
from bench.bare import messages
from bench.by_hand import copy_line
from pgdoc.server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from pgdoc import ChangeEvent

SINKS = "sinks"
CHANGES = 10_000
A_TRANSACTION = 100
ROUNDS = 3
ONE_BY_ONE = 300  # of the changes
BATCHES = (1, 10, 100, 1_000)
FILL = """
INSERT INTO docs.orders (id, data) SELECT 'o-' || n, jsonb_build_object('number', n, 'status', 'new', 'total', n * 1.25,
  'customer', jsonb_build_object('name', md5(n::text), 'city', 'Reykjavík'), 'note', repeat('x', 60))
FROM generate_series(%(first)s::int, %(last)s::int) n
"""
UPDATE = """
UPDATE docs.orders SET data = data || '{"status": "paid"}'
WHERE id = ANY(SELECT 'o-' || n FROM generate_series(%(first)s::int, %(last)s::int) n)
"""
FORMS: dict[str, Callable[[ChangeEvent], pgdoc.RawJson | dict[str, Any]]] = {
    "to_json()": lambda event: pgdoc.RawJson(event.to_json()),
    "to_dict()": pgdoc.ChangeEvent.to_dict,
}


class Work(NamedTuple):
    """How many of the changes after a position to move, and how many in a transaction."""

    after: pgdoc.ResumeToken
    events: int
    size: int


@dataclass
class Peer:
    """Moves this many events into the collection of this name, and returns when the first was there."""

    name: str
    events: int
    move: Callable[[str], float]
    rates: list[float] = field(default_factory=list)


def main() -> int:
    with LocalServer(plugin="wal2json") as server, pgdoc.Store(server.conninfo) as store:
        token = fill(server.conninfo, store)
        peers = selected(__doc__, all_peers(server.conninfo, token), lambda peer: peer.name)
        numbers = itertools.count()
        for _ in range(ROUNDS):
            for peer in peers:
                with pgdoc.Store(server.conninfo, schema=SINKS) as sinks:
                    run(sinks, peer, f"sink_{next(numbers)}")
    report(peers)
    return 0


def fill(conninfo: str, store: pgdoc.Store, changes: int = CHANGES) -> pgdoc.ResumeToken:
    """Write the changes; return the position before them, at which a slot `bench` begins, too."""
    store.migrate()
    store.create_collection("orders")
    with psycopg.connect(conninfo, autocommit=True) as connection, store["orders"].watch() as stream:
        connection.execute("CREATE TABLE public.progress (name text PRIMARY KEY, lsn bigint NOT NULL)")
        connection.execute("SELECT pg_create_logical_replication_slot('bench', 'wal2json')")
        token = stream.resume_token
        for first in range(0, changes // 2, A_TRANSACTION):
            for statement in (FILL, UPDATE):
                connection.execute(statement.encode(), {"first": first, "last": first + A_TRANSACTION - 1})
    return token


def all_peers(conninfo: str, token: pgdoc.ResumeToken) -> Iterator[Peer]:
    for size in BATCHES:
        work = Work(token, ONE_BY_ONE if size == 1 else CHANGES, size)
        yield Peer(f"by hand, {size:,}", work.events, partial(move_by_hand, conninfo, work))
        for form in FORMS:
            yield Peer(f"pgdoc, {form}, {size:,}", work.events, partial(move, conninfo, work, form))
        yield Peer(f"pgdoc, async, {size:,}", work.events, partial(run_async, conninfo, work))
        yield Peer(f"pgdoc, does not wait for the disk, {size:,}", work.events, partial(move_soon, conninfo, work))


def run(sinks: pgdoc.Store, peer: Peer, name: str) -> None:
    sinks.create_collection(name)
    began = peer.move(name)
    peer.rates.append((peer.events - 1) / (time.perf_counter() - began))
    found = sinks[name].count()
    if found != peer.events:
        raise RuntimeError(f"{peer.name}: {found:,} documents for {peer.events:,} events")
    sinks.drop_collection(name)


def move(conninfo: str, work: Work, form: str, name: str) -> float:
    left, began, data_of = work.events, 0.0, FORMS[form]
    with (
        pgdoc.Store(conninfo, schema="docs") as store,
        pgdoc.Store(conninfo, schema=SINKS) as sinks,
        store["orders"].watch(consumer=name, resume_after=work.after, auto_ack=False) as stream,
    ):
        while left:
            events = stream.next_batch(min(work.size, left))
            began = began or time.perf_counter()
            with sinks.transaction() as tx:
                if len(events) == 1:
                    tx[name].insert(pgdoc.new_id(), data_of(events[0]))
                else:
                    tx[name].insert_many((pgdoc.new_id(), data_of(event)) for event in events)
                stream.checkpoint(events[-1], tx)
            left -= len(events)
    with pgdoc.Store(conninfo) as store:
        store.drop_consumer(name)
    return began


def move_soon(conninfo: str, work: Work, name: str) -> float:
    return move(make_conninfo(conninfo, options="-c synchronous_commit=off"), work, "to_json()", name)


def run_async(conninfo: str, work: Work, name: str) -> float:
    return asyncio.run(move_async(conninfo, work, name))


async def move_async(conninfo: str, work: Work, name: str) -> float:
    left, began, data_of = work.events, 0.0, FORMS["to_json()"]
    async with pgdoc.AsyncStore(conninfo) as store, pgdoc.AsyncStore(conninfo, schema=SINKS) as sinks:
        async with store["orders"].watch(consumer=name, resume_after=work.after, auto_ack=False) as stream:
            while left:
                events = await stream.next_batch(min(work.size, left))
                began = began or time.perf_counter()
                async with sinks.transaction() as tx:
                    if len(events) == 1:
                        await tx[name].insert(pgdoc.new_id(), data_of(events[0]))
                    else:
                        await tx[name].insert_many((pgdoc.new_id(), data_of(event)) for event in events)
                    await stream.checkpoint(events[-1], tx)
                left -= len(events)
        await store.drop_consumer(name)
    return began


def move_by_hand(conninfo: str, work: Work, name: str) -> float:
    insert = f"INSERT INTO sinks.{name} (id, data) VALUES (%s, %s::jsonb)".encode()
    copy = f"COPY sinks.{name} (id, data) FROM STDIN".encode()
    began, left = 0.0, work.events
    with psycopg.connect(conninfo) as connection, contextlib.closing(changes_by_hand(conninfo)) as changes:
        connection.execute("INSERT INTO public.progress VALUES (%s, 0)", [name])
        connection.commit()
        next(changes)
        while left:
            batch = list(itertools.islice(changes, min(work.size, left)))
            began = began or time.perf_counter()
            if work.size == 1:
                connection.execute(insert, [pgdoc.new_id(), orjson.dumps(batch[0]).decode()])
            else:
                with connection.cursor().copy(copy) as rows:
                    rows.write(b"".join([copy_line(pgdoc.new_id(), change) for change in batch]))
            connection.execute("UPDATE public.progress SET lsn = %s WHERE name = %s", [batch[-1]["position"], name])
            connection.commit()
            left -= len(batch)
    return began


def changes_by_hand(conninfo: str) -> Generator[Any, None, None]:
    """Yield `None` when the stream has started, then a document for each change of `orders`."""
    received = messages(conninfo, source="bench")
    with contextlib.closing(received):
        yield next(received)
        transaction: dict[str, Any] = {}
        for position, message in received:
            if message["action"] == "B":
                transaction = message
            elif message["action"] in "IU" and message["table"] == "orders":
                yield document_of(position, message, transaction)


def document_of(position: int, message: dict[str, Any], transaction: dict[str, Any]) -> dict[str, Any]:
    after, before = (image_of(message.get(part)) for part in ("columns", "identity"))
    return {
        "event_type": "insert" if message["action"] == "I" else "update",
        "collection": message["table"],
        "document_id": (after or before or {})["id"],
        "full_document": after,
        "full_document_before_change": before,
        "position": position,
        "timestamp": transaction["timestamp"],
        "transaction_id": transaction["xid"],
    }


def image_of(columns: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    if columns is None:
        return None
    image = {column["name"]: column["value"] for column in columns}
    image["data"] = orjson.Fragment(image["data"])
    return image


def report(peers: list[Peer]) -> None:
    print(f"{CHANGES:,} waiting changes ({ONE_BY_ONE:,} one by one), median of {ROUNDS} rounds")
    print(f"{'way, events in a transaction':42}{'events/s':>10}{'ratio to by hand':>18}")
    bases = {peer.name.rpartition(", ")[2]: peer.rates for peer in peers if peer.name.startswith("by hand")}
    for peer in peers:
        base = bases.get(peer.name.rpartition(", ")[2])
        ratio = statistics.median(map(float.__truediv__, peer.rates, base)) if base else float("nan")
        print(f"{peer.name:42}{statistics.median(peer.rates):10,.0f}{ratio:18.2f}")


if __name__ == "__main__":
    sys.exit(main())
