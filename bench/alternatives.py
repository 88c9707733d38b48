"""What people use instead of pgdoc. Each yields `None` when it has begun to read, then the document of each change."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import select
import time
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from bench.bare import make_slot
from pgdoc.decoding.wal2json import wal2json_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

POLL_S = 0.05
MONGODB = os.environ.get("PGDOC_BENCH_MONGODB", "")

# The two triggers that people write by hand, each on a plain table.
SETUP = """
CREATE TABLE bench.listened (id text PRIMARY KEY, data jsonb NOT NULL);
CREATE FUNCTION bench.notify() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_notify('bench', NEW.data::text); RETURN NULL; END $$;
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON bench.listened FOR EACH ROW EXECUTE FUNCTION bench.notify();
CREATE TABLE bench.polled (id text PRIMARY KEY, data jsonb NOT NULL);
CREATE TABLE bench.outbox (number bigserial PRIMARY KEY, data jsonb NOT NULL);
CREATE FUNCTION bench.put() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO bench.outbox (data) VALUES (NEW.data); RETURN NULL; END $$;
CREATE TRIGGER put AFTER INSERT OR UPDATE ON bench.polled FOR EACH ROW EXECUTE FUNCTION bench.put();
"""
TAKE = """
WITH taken AS (DELETE FROM bench.outbox RETURNING number, data) SELECT data::text FROM taken ORDER BY number
"""


def has_psycopg2() -> bool:
    return importlib.util.find_spec("psycopg2") is not None


def has_mongodb() -> bool:
    """Return whether PGDOC_BENCH_MONGODB names a replica set and pymongo is installed."""
    return bool(MONGODB) and importlib.util.find_spec("pymongo") is not None


def psycopg2(conninfo: str, schema: str = "docs", *, source: str | None = None) -> Generator[Any, None, None]:
    """Read through psycopg2's `LogicalReplicationConnection`, as its documentation shows, with the json module."""
    from psycopg2 import connect, extras  # noqa: PLC0415 (optional)

    connection = connect(conninfo, connection_factory=extras.LogicalReplicationConnection)
    with contextlib.closing(connection), connection.cursor() as cursor:
        slot = f"bench_{secrets.token_hex(4)}"
        cursor.execute(make_slot(slot, source))
        cursor.start_replication(slot_name=slot, options=wal2json_options(schema), decode=True)
        yield None
        while True:
            message = cursor.read_message()
            if message is None:
                select.select([cursor], [], [])
                continue
            change = json.loads(message.payload)
            if change["action"] in "IU":
                yield json.loads(change["columns"][1]["value"])


def listen(conninfo: str) -> Generator[Any, None, None]:
    """LISTEN, with the document as the payload."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("LISTEN bench")
        yield None
        for notification in connection.notifies():
            yield orjson.loads(notification.payload)


def poll(conninfo: str) -> Generator[Any, None, None]:
    """Take the rows of the outbox every 50 ms."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DELETE FROM bench.outbox")
        yield None
        while True:
            for (text,) in connection.execute(TAKE).fetchall():
                yield orjson.loads(text)
            time.sleep(POLL_S)


def mongodb(uri: str) -> Generator[Any, None, None]:
    """Read a change stream of a MongoDB collection."""
    from pymongo import MongoClient  # noqa: PLC0415 (optional)

    client: Any = MongoClient(uri)
    with client, client.bench.orders.watch() as stream:
        yield None
        for change in stream:
            yield change["fullDocument"]


def document(n: int) -> dict[str, Any]:
    """Return what `bench.document(n, 200)` of `harness.SETUP` returns."""
    skus = [hashlib.md5(f"{n}-{i}".encode(), usedforsecurity=False).hexdigest() for i in (1, 2)]
    lines = [{"sku": sku, "count": i} for i, sku in enumerate(skus, 1)]
    return {"n": n, "total": n * 1.25, "status": "new", "lines": lines}


@contextlib.contextmanager
def mongodb_writer(uri: str) -> Iterator[Callable[[str, int], None]]:
    """Yield a function that inserts the document of a number, for `harness.Writer`; its first argument is not used."""
    from pymongo import MongoClient  # noqa: PLC0415 (optional)

    client: Any = MongoClient(uri)
    with client:
        client.bench.orders.drop()
        orders = client.bench.create_collection("orders")

        def insert(_statement: str, n: int) -> None:
            orders.insert_one({"_id": f"w-{n}", **document(n)})

        yield insert
