"""The baseline for documents: the calls on a collection, hand-written with SQL, psycopg's pool and orjson.

It checks nothing: neither the id, nor that the JSON text equals the data, nor that an update fits the document. It uses
the tables that pgdoc uses, and returns the same columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from psycopg_pool import AsyncConnectionPool, ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from typing import Self

INSERT = b"""
INSERT INTO docs.written (id, data) VALUES (%s, %s::jsonb) RETURNING version, created_at, updated_at
"""
COPY = b"COPY docs.written (id, data) FROM STDIN"
GET = b"SELECT data::text, version, created_at, updated_at FROM docs.orders WHERE id = %s"
SET = b"""
UPDATE docs.orders SET data = jsonb_set(data, %s::text[], %s::jsonb) WHERE id = %s
RETURNING data::text, version, created_at, updated_at
"""
INCREMENT = b"""
UPDATE docs.orders SET data = jsonb_set(data, %s::text[], to_jsonb((data #>> %s::text[])::numeric + %s::numeric))
WHERE id = %s RETURNING data::text, version, created_at, updated_at
"""
UPSERT = b"""
INSERT INTO docs.orders AS stored (id, data) VALUES (%s, %s::jsonb)
ON CONFLICT (id) DO UPDATE SET data = jsonb_set(stored.data, %s::text[], %s::jsonb)
RETURNING data::text, version, created_at, updated_at
"""
FIND = b"SELECT id, data::text, version, created_at, updated_at FROM docs.orders"
FIND_SHOP = FIND + b" WHERE data ->> 'shop' = %s"
FIND_ANY_CASE = FIND + b" WHERE lower(data ->> 'shop') = lower(%s)"
FIND_SLICED = b"""
SELECT id, jsonb_build_object('shop', data -> 'shop', 'lines', jsonb_path_query_array(data, '$.lines[0]'))::text,
  version, created_at, updated_at FROM docs.orders WHERE data ->> 'shop' = %s
"""
FIND_MATCHED = b"""
SELECT id, jsonb_build_object('lines', jsonb_path_query_first(data, '$.lines ? (@.sku == "sku-x")'))::text,
  version, created_at, updated_at FROM docs.orders WHERE data ->> 'shop' = %s AND data @? '$.lines ? (@.sku == "sku-x")'
"""
FIND_COMPUTED = b"""
SELECT id, jsonb_build_object('city', data #> '{customer,city}', 'lines', jsonb_array_length(data -> 'lines'))::text,
  version, created_at, updated_at FROM docs.orders WHERE data ->> 'shop' = %s
"""
INSERT_NEW = b"""
INSERT INTO docs.written (id, data) VALUES (%s, %s::jsonb) ON CONFLICT (id) DO NOTHING RETURNING version
"""
COUNT_SHOP = b"SELECT count(*) FROM docs.orders WHERE data ->> 'shop' = %s"
COUNT_STATUS = b"SELECT count(*) FROM docs.orders WHERE data ->> 'status' = %s"

# The same, also for documents that have an array with the value: then it means what the filter means.
_SHOP_OR_ARRAY = b"""
(data ->> 'shop' = %s OR jsonb_typeof(data -> 'shop') = 'array' AND (data -> 'shop') @> to_jsonb(%s::text))
"""
FIND_SHOP_OR_ARRAY = FIND + b" WHERE" + _SHOP_OR_ARRAY
COUNT_SHOP_OR_ARRAY = b"SELECT count(*) FROM docs.orders WHERE" + _SHOP_OR_ARRAY
COUNT_STATUS_OR_ARRAY = b"""
SELECT count(*) FROM docs.orders WHERE data ->> 'status' = %s OR data @> '{"status": ["paid"]}'
"""


@dataclass(slots=True)
class Row:
    """A document whose data is parsed."""

    id: str
    data: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


def _row(key: str, text: str, version: int, created_at: datetime, updated_at: datetime) -> Row:
    return Row(key, orjson.loads(text), version, created_at, updated_at)


def copy_line(key: str, data: Any) -> bytes:
    """Return a row in COPY's text format, which doubles each backslash of the JSON."""
    return b"%s\t%s\n" % (key.encode(), orjson.dumps(data).replace(b"\\", b"\\\\"))


class ByHand:
    def __init__(self, conninfo: str) -> None:
        self._pool = ConnectionPool(conninfo, kwargs={"autocommit": True}, min_size=1, max_size=10, open=True)

    def close(self) -> None:
        self._pool.close()

    def insert(self, key: str, data: Any) -> Row:
        ((version, created_at, updated_at),) = self._fetch(INSERT, [key, orjson.dumps(data).decode()])
        return Row(key, data, version, created_at, updated_at)

    def get(self, key: str) -> Row | None:
        rows = self._fetch(GET, [key])
        return _row(key, *rows[0]) if rows else None

    def set(self, key: str, path: list[str], value: Any) -> Row | None:
        rows = self._fetch(SET, [path, orjson.dumps(value).decode(), key])
        return _row(key, *rows[0]) if rows else None

    def upsert(self, key: str, data: Any, path: list[str], value: Any) -> Row:
        rows = self._fetch(UPSERT, [key, orjson.dumps(data).decode(), path, orjson.dumps(value).decode()])
        return _row(key, *rows[0])

    def increment(self, key: str, path: list[str], amount: int) -> Row | None:
        rows = self._fetch(INCREMENT, [path, path, amount, key])
        return _row(key, *rows[0]) if rows else None

    def find(self, query: bytes, params: Sequence[Any]) -> list[Row]:
        return [_row(*row) for row in self._fetch(query, params)]

    def count(self, query: bytes, params: Sequence[Any]) -> int:
        return int(self._fetch(query, params)[0][0])

    def insert_many(self, pairs: Iterable[tuple[str, Any]]) -> None:
        with self._pool.connection() as connection, connection.cursor() as cursor, cursor.copy(COPY) as copy:
            for key, data in pairs:
                copy.write(copy_line(key, data))

    def insert_apart(self, keys: list[str], data: Any) -> int:
        """Insert the new ones in one round trip; return how many there were."""
        with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
            cursors = [connection.execute(INSERT_NEW, [key, orjson.dumps(data).decode()], binary=True) for key in keys]
            return sum(len(cursor.fetchall()) for cursor in cursors)

    def _fetch(self, query: bytes, params: Sequence[Any]) -> list[Any]:
        with self._pool.connection() as connection:
            return connection.execute(query, params, binary=True).fetchall()


class AsyncByHand:
    def __init__(self, conninfo: str) -> None:
        settings = {"autocommit": True}
        self._pool = AsyncConnectionPool(conninfo, kwargs=settings, min_size=1, max_size=10, open=False)

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.close()

    async def insert(self, key: str, data: Any) -> Row:
        ((version, created_at, updated_at),) = await self._fetch(INSERT, [key, orjson.dumps(data).decode()])
        return Row(key, data, version, created_at, updated_at)

    async def get(self, key: str) -> Row | None:
        rows = await self._fetch(GET, [key])
        return _row(key, *rows[0]) if rows else None

    async def set(self, key: str, path: list[str], value: Any) -> Row | None:
        rows = await self._fetch(SET, [path, orjson.dumps(value).decode(), key])
        return _row(key, *rows[0]) if rows else None

    async def upsert(self, key: str, data: Any, path: list[str], value: Any) -> Row:
        rows = await self._fetch(UPSERT, [key, orjson.dumps(data).decode(), path, orjson.dumps(value).decode()])
        return _row(key, *rows[0])

    async def increment(self, key: str, path: list[str], amount: int) -> Row | None:
        rows = await self._fetch(INCREMENT, [path, path, amount, key])
        return _row(key, *rows[0]) if rows else None

    async def find(self, query: bytes, params: Sequence[Any]) -> list[Row]:
        return [_row(*row) for row in await self._fetch(query, params)]

    async def count(self, query: bytes, params: Sequence[Any]) -> int:
        return int((await self._fetch(query, params))[0][0])

    async def insert_many(self, pairs: Iterable[tuple[str, Any]]) -> None:
        async with self._pool.connection() as connection, connection.cursor() as cursor, cursor.copy(COPY) as copy:
            for key, data in pairs:
                await copy.write(copy_line(key, data))

    async def insert_apart(self, keys: list[str], data: Any) -> int:
        async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
            sent = ([key, orjson.dumps(data).decode()] for key in keys)
            cursors = [await connection.execute(INSERT_NEW, params, binary=True) for params in sent]
            return sum([len(await cursor.fetchall()) for cursor in cursors])

    async def _fetch(self, query: bytes, params: Sequence[Any]) -> list[Any]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query, params, binary=True)
            return await cursor.fetchall()
