"""A shop with SQLAlchemy models, a product cache in Redis, and a search index. Both follow the shop's own tables.

The application uses the models as before; it knows nothing of the cache and the index. Next to it, run:

    python shop.py prepare [CONNINFO]
    python shop.py cache [CONNINFO] [REDIS_URL]
    python shop.py index [CONNINFO]

The arguments default to PGDOC_DSN and REDIS_URL. The tables must exist: `Base.metadata.create_all(connect(CONNINFO))`
creates them. `prepare` adds them, as their owner, and creates the schema `search`, so the role needs `CREATE` on the
database. You can kill `cache` and `index` at any moment and start them again. While no `cache` runs, `read` queries the
database.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (SQLAlchemy looks it up)
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from redis import Redis
from sqlalchemy import ForeignKey, Numeric, Text, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.client import Pipeline
    from sqlalchemy import Engine

# The models of the application, as they were before


class Base(DeclarativeBase):
    """The base of the models."""


class Category(Base):
    """A category of products."""

    __tablename__ = "categories"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Product(Base):
    """A product. Its key is its number on the shelf, which may change."""

    __tablename__ = "products"
    sku: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"))


class Price(Base):
    """The price of a product."""

    __tablename__ = "prices"
    sku: Mapped[str] = mapped_column(ForeignKey(Product.sku, onupdate="CASCADE", ondelete="CASCADE"), primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))


class Stock(Base):
    """How many of a product there are."""

    __tablename__ = "stock"
    sku: Mapped[str] = mapped_column(ForeignKey(Product.sku, onupdate="CASCADE", ondelete="CASCADE"), primary_key=True)
    quantity: Mapped[int]


class Event(Base):
    """Something that happened in the shop, such as `{"type": "sold", "sku": "T-1", "quantity": 2}`."""

    __tablename__ = "events"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)


@dataclass(frozen=True)
class Item:
    """What a page of the shop shows of a product."""

    name: str
    tags: list[str]
    category: str
    price: Decimal | None
    quantity: int


def query(session: Session, sku: str) -> Item | None:
    """Read a product from the database."""
    found = session.execute(
        select(Product.name, Product.tags, Category.name, Price.amount, func.coalesce(Stock.quantity, 0))
        .join(Category)
        .outerjoin(Price, Price.sku == Product.sku)
        .outerjoin(Stock, Stock.sku == Product.sku)
        .where(Product.sku == sku)
    ).one_or_none()
    return None if found is None else Item(*found)


def connect(conninfo: str) -> Engine:
    """Return an engine of SQLAlchemy for a conninfo."""
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))


# The cache: each table is a hash in Redis, and each row one of its fields

PRODUCTS, CATEGORIES, PRICES, STOCK = "public.products", "public.categories", "public.prices", "public.stock"
CACHED = (PRODUCTS, PRICES, STOCK, CATEGORIES)
POSITION = "shop:position"  # the resume token of what the hashes contain; lost whenever they are lost
WATCHED = "shop:watched"  # exists while the hashes are complete and a watcher keeps up
WATCHED_S = 5
START_ANEW = {"schema", "create", "rename", "drop", "invalidate"}  # `ADD COLUMN ... DEFAULT` has no event for each row

READ = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
local product = redis.call('HGET', KEYS[2], ARGV[1])
if not product then return {} end
local category = string.format('%d', cjson.decode(product).category_id)
return {product, redis.call('HGET', KEYS[3], ARGV[1]), redis.call('HGET', KEYS[4], ARGV[1]),
        redis.call('HGET', KEYS[5], category)}
"""


def read(redis: Redis, session: Session, sku: str) -> Item | None:
    """Read a product from the cache if a watcher keeps it up to date, else from the database."""
    found = redis.eval(READ, 1 + len(CACHED), WATCHED, *CACHED, sku)
    if found is None:
        return query(session, sku)
    if not found:
        return None
    product, price, stock, category = (json.loads(row) if row else {} for row in found)
    amount = price.get("amount")
    return Item(
        product["name"],
        product["tags"],
        category.get("name", ""),
        None if amount is None else Decimal(amount),
        stock.get("quantity", 0),
    )


def follow(store: pgdoc.Store, redis: Redis) -> Iterator[list[pgdoc.ChangeEvent]]:
    """Keep the cache up to date, and yield each batch of changes after it was handled.

    Raises:
        RuntimeError: Another watcher took over, or Redis lost the last write. Start the watcher again.
    """
    while True:
        stream, position = open_stream(store, redis)
        with stream:
            while True:
                events = stream.next_batch(timeout=1)
                starts_anew = any(event.event_type in START_ANEW for event in events)
                token = str(stream.resume_token)
                is_complete = stream.stats().mode == "live"  # not inside a snapshot, nor far behind
                with redis.pipeline() as changes:
                    begin(changes, position)
                    for event in events:
                        apply(changes, event)
                    changes.set(POSITION, token)
                    if is_complete:
                        changes.set(WATCHED, 1, ex=WATCHED_S)
                    if starts_anew:
                        forget(changes)
                    changes.execute()
                position = token
                yield events
                if starts_anew:
                    break


def begin(changes: Pipeline, position: str) -> None:
    """Begin a transaction of Redis that fails if another watcher has written."""
    changes.watch(POSITION)  # type: ignore[no-untyped-call]
    if (changes.get(POSITION) or "") != position:
        raise RuntimeError(
            f"this watcher did not write the present {POSITION}: "
            "another watcher is running, or Redis restarted; start one watcher again"
        )
    changes.multi()


def apply(changes: Pipeline, event: pgdoc.ChangeEvent) -> None:
    """Apply an event to the hash of its table."""
    if event.full_document is not None:
        row = json.dumps(event.full_document.data, default=str)  # a Decimal as text keeps its digits
        changes.hset(event.collection, event.full_document.id, row)
    elif event.event_type == "delete":
        changes.hdel(event.collection, str(event.document_id))
    elif event.event_type == "truncate":
        changes.delete(event.collection)


def open_stream(store: pgdoc.Store, redis: Redis) -> tuple[pgdoc.ChangeStream, str]:
    """Continue from the stored position, or empty the cache and start with a snapshot if that is impossible."""
    position = str(redis.get(POSITION) or "")
    if position:
        with contextlib.suppress(pgdoc.HistoryLost, pgdoc.InvalidResumeToken):
            return store.watch(*CACHED, snapshot=True, resume_after=position), position
    forget(redis)
    return store.watch(*CACHED, snapshot=True), ""


def forget(redis: Redis | Pipeline) -> None:
    """Empty the cache; readers query the database from now on, and the next watcher begins with a snapshot."""
    redis.delete(WATCHED, POSITION, *CACHED)


# The search index: tables of the schema `search`, in the same database

EVENTS = "public.events"
INDEXED = (CATEGORIES, PRODUCTS, EVENTS)
INDEX = "search"  # the name of the consumer
USED = {CATEGORIES: {"id", "name"}, PRODUCTS: {"sku", "name", "tags", "category_id"}, EVENTS: {"payload"}}

CREATE_INDEX = """
CREATE SCHEMA IF NOT EXISTS search;
CREATE TABLE IF NOT EXISTS search.categories (id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE IF NOT EXISTS search.products (
  sku text PRIMARY KEY, name text NOT NULL, tags text[] NOT NULL, category_id text NOT NULL, words tsvector);
CREATE TABLE IF NOT EXISTS search.sold (sku text PRIMARY KEY, quantity bigint NOT NULL);
CREATE INDEX IF NOT EXISTS words ON search.products USING gin (words);
CREATE INDEX IF NOT EXISTS of_category ON search.products (category_id);
"""
SET_CATEGORY = "INSERT INTO search.categories VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
SET_PRODUCT = (
    "INSERT INTO search.products VALUES (%s, %s, %s, %s) ON CONFLICT (sku) "
    "DO UPDATE SET name = excluded.name, tags = excluded.tags, category_id = excluded.category_id"
)
SET_WORDS = """
UPDATE search.products p
SET words = to_tsvector('simple', concat_ws(' ', p.name, array_to_string(p.tags, ' '),
                                            (SELECT c.name FROM search.categories c WHERE c.id = p.category_id)))
WHERE p.sku = %s OR p.category_id = %s
"""
ADD_SOLD = """
INSERT INTO search.sold VALUES (%s, %s) ON CONFLICT (sku) DO UPDATE SET quantity = sold.quantity + excluded.quantity
"""
SEARCH = """
SELECT p.sku FROM search.products p LEFT JOIN search.sold s USING (sku)
WHERE p.words @@ websearch_to_tsquery('simple', :words) ORDER BY coalesce(s.quantity, 0) DESC, p.sku
"""


def search(session: Session, words: str) -> list[str]:
    """Return the products that have the words in their name, tags or category: those that sold best come first."""
    return list(session.scalars(text(SEARCH), {"words": words}))


def index(store: pgdoc.Store) -> None:
    """Keep the index up to date: each event changes it exactly once, because the checkpoint is in the transaction."""
    with store.watch(*INDEXED, consumer=INDEX, snapshot=True) as stream:
        for events in stream.batches():
            with store.transaction() as tx:
                for event in events:
                    enter(tx.connection, event)
                stream.checkpoint(events[-1], tx)


def enter(connection: psycopg.Connection[Any], event: pgdoc.ChangeEvent) -> None:
    """Enter an event into the index."""
    before, after = event.full_document_before_change, event.full_document
    if event.document_id is None:
        enter_change_of_table(connection, event)
    elif event.collection == EVENTS:  # its documents are the payloads
        for sign, document in ((-1, before), (1, after)):
            if document is not None and document.get("type") == "sold":
                connection.execute(ADD_SOLD, [document["sku"], sign * document["quantity"]])
    elif event.collection == CATEGORIES:
        if after is None:
            connection.execute("DELETE FROM search.categories WHERE id = %s", [event.document_id])
        else:
            connection.execute(SET_CATEGORY, [after.id, after["name"]])
        connection.execute(SET_WORDS, [None, event.document_id])
    elif after is None:
        connection.execute("DELETE FROM search.products WHERE sku = %s", [event.document_id])
    else:
        connection.execute(SET_PRODUCT, [after.id, after["name"], after["tags"], str(after["category_id"])])
        connection.execute(SET_WORDS, [after.id, None])


def enter_change_of_table(connection: psycopg.Connection[Any], event: pgdoc.ChangeEvent) -> None:
    """Enter a change that is not one of a row."""
    if event.event_type == "truncate":
        emptied = {CATEGORIES: "categories", PRODUCTS: "products", EVENTS: "sold"}[event.collection]
        connection.execute(f"TRUNCATE search.{emptied}".encode())
        if event.collection == CATEGORIES:
            connection.execute("UPDATE search.products SET words = NULL")
    elif event.event_type != "schema" or not USED[event.collection] <= (event.columns or {})["after"].keys():
        raise RuntimeError(f"{event.event_type} of {event.collection}: change the program, then prepare it anew")


def prepare(store: pgdoc.Store) -> None:
    """Let streams watch the tables, and begin the index anew."""
    for table in (*CACHED, EVENTS):
        store.add_table(table, document="payload" if table == EVENTS else None)
    store.drop_consumer(INDEX)
    with store.transaction() as tx:
        tx.connection.execute(CREATE_INDEX)
        tx.connection.execute("TRUNCATE search.categories, search.products, search.sold")


def main() -> None:
    """Run one of the commands until it is interrupted."""
    defaults = ["", os.environ.get("PGDOC_DSN", ""), os.environ.get("REDIS_URL", "redis://localhost")]
    command, conninfo, url = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    with pgdoc.Store(conninfo, decimals=True) as store:
        if command == "prepare":
            prepare(store)
        elif command == "index":
            index(store)
        else:
            with Redis.from_url(url, decode_responses=True) as redis:
                for events in follow(store, redis):
                    for event in events:
                        print(f"{event.event_type} {event.collection} {event.document_id}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
