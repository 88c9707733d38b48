"""Products cached in Redis, and never read older than the last change that was handled.

`read` is what the application calls. The watcher, which has to run beside it, is

    python cache.py [CONNINFO] [REDIS_URL]

where PGDOC_DSN and REDIS_URL are the defaults. It may be killed at any moment and started again; while none runs,
`read` asks the database.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from redis import Redis

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = "products:place"  # the token of the last change that was handled; it lives and dies with the entries
WATCHED = "products:watched"  # there as long as a watcher keeps up
KEEP_S, LEASE_S, WATCHED_S = 3600, 10, 5
NOT_CACHED = "lease of nobody"  # an entry that sends every reader to the database

# Give what is there; where nothing is, leave a lease, which is the right to fill it.
LOOK = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local found = redis.call('GET', KEYS[2])
if found then return found end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
"""
# Fill, if the lease is still there: since it was left, no change of the product was handled.
FILL = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end"
# Handle a change and move the place on, both or neither, if the place is where this watcher left it.
HANDLE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5]) end
if ARGV[3] ~= '0' then redis.call('SET', KEYS[2], 1, 'EX', ARGV[3]) end
return 1
"""


def read(redis: Redis, products: pgdoc.Collection, product_id: str) -> dict[str, Any] | None:
    """Give a product's data, from the cache where it can; `None` where there is no such product."""
    key, lease = f"product:{product_id}", f"lease {uuid.uuid4()}"
    found: str | None = redis.eval(LOOK, 2, WATCHED, key, lease, LEASE_S)
    if found and not found.startswith("lease "):
        cached: dict[str, Any] | None = json.loads(found)
        return cached
    document = products.get(product_id)
    if found == lease:
        redis.eval(FILL, 1, key, lease, entry(document), KEEP_S)
    return document.data if document else None


def entry(document: pgdoc.Document | None) -> str:
    """Write a product as the cache has it; that there is none is worth knowing, too."""
    try:
        return json.dumps(document.data if document else None)
    except (TypeError, pgdoc.UnreadableDocument):  # numbers that json has no form for, or Python none
        return NOT_CACHED


def follow(store: pgdoc.Store, redis: Redis) -> Iterator[pgdoc.ChangeEvent]:
    """Keep the cache, and give each change when it has been handled.

    Raises:
        RuntimeError: another watcher has taken over, or Redis has lost what was written last: start anew.
    """
    stream, place = open_stream(store, redis)
    with stream:
        while True:
            event = stream.next(timeout=1)
            keys, values = [PLACE, WATCHED], [place, str(stream.resume_token)]
            values.append(str(WATCHED_S if stream.stats().mode == "live" else 0))  # not in a snapshot, not far behind
            if event and event.document_id:
                keys.append(f"product:{event.document_id}")
                values += [entry(event.full_document), str(KEEP_S)]
            elif event:  # of the whole collection: emptied, dropped, renamed
                forget(redis)
            if not redis.eval(HANDLE, len(keys), *keys, *values):
                raise RuntimeError(f"{PLACE} is not where this watcher left it: another one runs, or Redis restarted")
            place = values[1]
            if event:
                yield event
            if event and event.event_type == "invalidate":
                return


def open_stream(store: pgdoc.Store, redis: Redis) -> tuple[pgdoc.ChangeStream, str]:
    """Go on where the cache was left; where that can't be done, empty it and begin with what exists."""
    place = str(redis.get(PLACE) or "")
    if place:
        with contextlib.suppress(pgdoc.HistoryLost, pgdoc.InvalidResumeToken):
            return store["products"].watch(snapshot=True, resume_after=place), place
    redis.delete(PLACE)
    forget(redis)
    return store["products"].watch(snapshot=True), ""


def forget(redis: Redis) -> None:
    """Drop every entry and lease."""
    redis.delete(WATCHED)  # first: from here on nobody gets a lease
    for key in redis.scan_iter("product:*", count=1000):
        redis.unlink(key)


def main() -> None:
    """Run the watcher, and tell what it does."""
    defaults = [os.environ.get("PGDOC_DSN", ""), os.environ.get("REDIS_URL", "redis://localhost")]
    conninfo, url = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    with pgdoc.Store(conninfo) as store, Redis.from_url(url, decode_responses=True) as redis:
        for event in follow(store, redis):
            age = (datetime.now(UTC) - event.timestamp) / timedelta(milliseconds=1)
            print(f"{event.timestamp.isoformat()} {event.event_type} {event.document_id}: {age:.1f} ms", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
