"""Cache products in Redis. A read is never older than the last change that the watcher handled.

The application calls `read`. Next to it, run the watcher:

    python cache.py [CONNINFO] [REDIS_URL]

The arguments default to PGDOC_DSN and REDIS_URL. You can kill the watcher at any moment and start it again. While no
watcher runs, `read` queries the database.
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

POSITION = "products:position"  # the resume token of the last handled change; lost whenever the entries are lost
WATCHED = "products:watched"  # exists while a watcher keeps up
KEEP_S, LEASE_S, WATCHED_S = 3600, 10, 5
NOT_CACHED = "lease of nobody"  # an entry that makes every reader query the database

# Return the entry. If there is none, store a lease: its holder may fill the entry.
LOOK = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local found = redis.call('GET', KEYS[2])
if found then return found end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
"""
# Fill the entry if the lease is still there, which means that no change of the product was handled since.
FILL = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end"
# Store a change together with its position, but only if this watcher wrote the last position.
HANDLE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5]) end
if ARGV[3] ~= '0' then redis.call('SET', KEYS[2], 1, 'EX', ARGV[3]) end
return 1
"""


def read(redis: Redis, products: pgdoc.Collection, product_id: str) -> dict[str, Any] | None:
    """Return a product's data, from the cache if possible, or `None` if there is no such product."""
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
    """Return the cache entry of a product. A missing product has an entry, too."""
    try:
        return json.dumps(document.data if document else None)
    except (TypeError, pgdoc.UnreadableDocument):  # numbers that json or Python can't represent
        return NOT_CACHED


def follow(store: pgdoc.Store, redis: Redis) -> Iterator[pgdoc.ChangeEvent]:
    """Keep the cache up to date, and yield each change after it was handled.

    Raises:
        RuntimeError: Another watcher took over, or Redis lost the last write. Start the watcher again.
    """
    stream, position = open_stream(store, redis)
    with stream:
        while True:
            event = stream.next(timeout=1)
            keys, values = [POSITION, WATCHED], [position, str(stream.resume_token)]
            values.append(str(WATCHED_S if stream.stats().mode == "live" else 0))  # 0 inside a snapshot or far behind
            if event and event.document_id:
                keys.append(f"product:{event.document_id}")
                values += [entry(event.full_document), str(KEEP_S)]
            elif event:  # the whole collection was emptied, dropped or renamed
                forget(redis)
            if not redis.eval(HANDLE, len(keys), *keys, *values):
                raise RuntimeError(
                    f"this watcher did not write the present {POSITION}: "
                    "another watcher is running, or Redis restarted; start one watcher again"
                )
            position = values[1]
            if event:
                yield event
            if event and event.event_type == "invalidate":
                return


def open_stream(store: pgdoc.Store, redis: Redis) -> tuple[pgdoc.ChangeStream, str]:
    """Continue from the stored position, or empty the cache and start with a snapshot if that is impossible."""
    position = str(redis.get(POSITION) or "")
    if position:
        with contextlib.suppress(pgdoc.HistoryLost, pgdoc.InvalidResumeToken):
            return store["products"].watch(snapshot=True, resume_after=position), position
    redis.delete(POSITION)
    forget(redis)
    return store["products"].watch(snapshot=True), ""


def forget(redis: Redis) -> None:
    """Delete every entry and lease."""
    redis.delete(WATCHED)  # first, so that no reader gets a new lease
    for key in redis.scan_iter("product:*", count=1000):
        redis.unlink(key)


def main() -> None:
    """Run the watcher, and print each change that it handles."""
    defaults = [os.environ.get("PGDOC_DSN", ""), os.environ.get("REDIS_URL", "redis://localhost")]
    conninfo, url = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    with pgdoc.Store(conninfo) as store, Redis.from_url(url, decode_responses=True) as redis:
        for event in follow(store, redis):
            age = (datetime.now(UTC) - event.timestamp) / timedelta(milliseconds=1)
            print(f"{event.timestamp.isoformat()} {event.event_type} {event.document_id}: {age:.1f} ms", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
