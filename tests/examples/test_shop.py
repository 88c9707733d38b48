"""The shop: a cache and an index that follow its tables, killed while writers, DDL and new keys go on."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

import pgdoc
from docs.examples import shop
from tests.examples.dying import STEPS
from tests.examples.programs import PATIENCE_S, ROOT, drop_consumer, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis
    from sqlalchemy import Engine

TRANSACTIONS, KILLS = 500, 3
WORDS = ("green", "black", "white", "cup", "pot", "tin")
NO_DATABASE: Any = None  # a session that a read from the cache must not need

EXPECTED_WORDS = """
SELECT p.sku, to_tsvector('simple', concat_ws(' ', p.name, array_to_string(p.tags, ' '), c.name))::text
FROM products p JOIN categories c ON c.id = p.category_id
"""
EXPECTED_SOLD = """
SELECT payload ->> 'sku', sum((payload -> 'quantity')::bigint) FROM events
WHERE payload ->> 'type' = 'sold' GROUP BY 1
"""


@pytest.fixture
def engine(dsn: str) -> Iterator[Engine]:
    engine = shop.connect(dsn)
    shop.Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all([shop.Category(id=1, name="tea"), shop.Category(id=2, name="ware")])
        session.flush()
        session.add(shop.Product(sku="T-1", name="Assam", tags=["black"], category_id=1))
        session.flush()
        session.add_all([shop.Price(sku="T-1", amount=Decimal("4.50")), shop.Stock(sku="T-1", quantity=3)])
        session.add(shop.Event(payload={"type": "sold", "sku": "T-1", "quantity": 2}))
    yield engine
    engine.dispose()


@pytest.fixture
def store(dsn: str, engine: Engine) -> Iterator[pgdoc.Store]:
    """A store whose tables are prepared."""
    with pgdoc.Store(dsn, decimals=True) as store:
        shop.prepare(store)
        yield store


@pytest.fixture
def consumer(store: pgdoc.Store) -> Iterator[None]:
    """Drop the consumer of the index after the test."""
    yield
    drop_consumer(store, shop.INDEX)


def follow_until(
    condition: Callable[[], object], follower: Iterator[list[pgdoc.ChangeEvent]]
) -> list[pgdoc.ChangeEvent]:
    found: list[pgdoc.ChangeEvent] = []
    for events in follower:
        found += events
        if condition():
            break
    return found


class Writers:
    """Two writers with the application's models, each with products of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.done = engine, 0
        self._done = threading.Lock()

    def write(self, shelf: str) -> None:
        dice, skus = random.Random(shelf), [f"{shelf}-{number}" for number in range(20)]
        while self.done < TRANSACTIONS:
            at = dice.randrange(len(skus))
            with Session(self.engine) as session, session.begin():
                if session.get(shop.Product, skus[at]) is None:
                    session.add(self._product(skus[at], dice))
                    session.flush()
                    session.add_all(
                        [shop.Price(sku=skus[at], amount=Decimal("1.10")), shop.Stock(sku=skus[at], quantity=0)]
                    )
                elif dice.random() < 0.1:
                    session.execute(delete(shop.Product).where(shop.Product.sku == skus[at]))
                elif dice.random() < 0.1:
                    renamed = f"{shelf}-{uuid.uuid4()}"
                    session.execute(update(shop.Product).where(shop.Product.sku == skus[at]).values(sku=renamed))
                    skus[at] = renamed
                else:
                    self._change(session, skus[at], dice)
            with self._done:
                self.done += 1

    def _product(self, sku: str, dice: random.Random) -> shop.Product:
        return shop.Product(
            sku=sku, name=dice.choice(WORDS), tags=dice.sample(WORDS, 2), category_id=dice.randint(1, 2)
        )

    def _change(self, session: Session, sku: str, dice: random.Random) -> None:
        session.merge(self._product(sku, dice))
        session.merge(shop.Price(sku=sku, amount=Decimal(dice.randrange(10_000)) / 100))
        session.merge(shop.Stock(sku=sku, quantity=dice.randrange(100)))
        session.add(shop.Event(payload={"type": "sold", "sku": sku, "quantity": dice.randint(1, 3)}))
        if dice.random() < 0.1:
            session.execute(delete(shop.Event).where(shop.Event.payload["sku"].astext == sku))
        if sku.startswith("A") and dice.random() < 0.1:
            session.execute(update(shop.Category).where(shop.Category.id == 2).values(name=dice.choice(WORDS)))


@contextlib.contextmanager
def busy(engine: Engine) -> Iterator[Writers]:
    writers = Writers(engine)
    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(writers.write, shelf) for shelf in "AB"]
        try:
            yield writers
        finally:
            writers.done += TRANSACTIONS
    for each in writing:
        each.result()


def in_cache(redis: Redis, skus: list[str]) -> dict[str, shop.Item | None]:
    """Return what the cache has; nothing if it would ask the database."""
    with contextlib.suppress(AttributeError):
        return {sku: shop.read(redis, NO_DATABASE, sku) for sku in skus}
    return {}


def in_database(engine: Engine) -> dict[str, shop.Item | None]:
    with Session(engine) as session:
        return {sku: shop.query(session, sku) for sku in session.scalars(select(shop.Product.sku)).all()}


def is_indexed(engine: Engine) -> bool:
    """Whether the index agrees with the tables."""
    with Session(engine) as session:

        def rows(statement: str) -> list[tuple[Any, ...]]:
            return sorted(map(tuple, session.execute(text(statement))))

        return rows("SELECT sku, words::text FROM search.products") == rows(EXPECTED_WORDS) and rows(
            "SELECT sku, quantity FROM search.sold WHERE quantity <> 0"
        ) == rows(EXPECTED_SOLD)


def test_without_a_watcher_a_read_asks_the_database(store, engine, redis):
    redis.hset(shop.PRODUCTS, "T-1", "old")
    with Session(engine) as session:
        item = shop.Item("Assam", ["black"], "tea", Decimal("4.50"), 3)
        assert shop.read(redis, session, "T-1") == item
        assert shop.read(redis, session, "T-2") is None


@pytest.fixture
def follower(store: pgdoc.Store, redis: Redis) -> Iterator[Iterator[list[pgdoc.ChangeEvent]]]:
    """The watcher of the cache, run one batch at a time. It keeps up."""
    with contextlib.closing(shop.follow(store, redis)) as follower:  # type: ignore[type-var]
        follow_until(partial(redis.exists, shop.WATCHED), follower)
        yield follower


def test_the_cache_has_what_the_database_has(follower, engine, redis):
    assert in_cache(redis, ["T-1", "T-2"]) == {**in_database(engine), "T-2": None}
    with Session(engine) as session, session.begin():
        session.merge(shop.Price(sku="T-1", amount=Decimal("5.00")))
        session.execute(update(shop.Category).values(name="drinks"))
    expected = in_database(engine)
    follow_until(lambda: in_cache(redis, ["T-1"]) == expected, follower)


def test_a_product_whose_key_changes_moves_with_its_price_and_stock(follower, engine, redis):
    with Session(engine) as session, session.begin():
        session.execute(update(shop.Product).values(sku="T-2"))
    expected = {"T-1": None, **in_database(engine)}
    seen = follow_until(lambda: in_cache(redis, ["T-1", "T-2"]) == expected, follower)
    assert [(event.event_type, event.document_id) for event in seen] == [("delete", "T-1"), ("insert", "T-2")] * 3


def test_a_table_that_is_emptied_leaves_nothing_in_the_cache(follower, engine, redis):
    with Session(engine) as session, session.begin():
        session.execute(text("TRUNCATE products CASCADE"))
    follow_until(lambda: not redis.exists(*shop.CACHED[:3]), follower)
    assert in_cache(redis, ["T-1"]) == {"T-1": None}


def test_a_column_that_is_added_starts_the_cache_anew(follower, engine, redis):
    with Session(engine) as session, session.begin():
        session.execute(text("ALTER TABLE products ADD COLUMN brand text NOT NULL DEFAULT 'none'"))
    seen = follow_until(lambda: not redis.exists(shop.WATCHED), follower)
    assert [event.event_type for event in seen] == ["schema"]
    assert in_cache(redis, ["T-1"]) == {}, "readers ask the database until the cache is complete again"
    seen = follow_until(lambda: redis.exists(shop.WATCHED), follower)
    assert {event.event_type for event in seen} == {"snapshot"}
    assert json.loads(redis.hget(shop.PRODUCTS, "T-1"))["brand"] == "none"


def test_a_second_watcher_ends_the_first(follower, store, redis):
    with contextlib.closing(shop.follow(store, redis)) as second:  # type: ignore[type-var]
        next(second)
        with pytest.raises(RuntimeError, match="another watcher is running"):
            next(follower)


def test_the_best_sold_product_is_found_first(consumer, engine, dsn):
    with Session(engine) as session, session.begin():
        session.add(shop.Product(sku="T-2", name="Darjeeling", tags=["black", "first flush"], category_id=1))
        session.add(shop.Event(payload={"type": "sold", "sku": "T-2", "quantity": 5}))
    with running("shop.py", "index", dsn) as process:
        wait_until(lambda: is_indexed(engine), process)
        with Session(engine) as session:
            assert shop.search(session, "black tea") == ["T-2", "T-1"]
            assert shop.search(session, "flush") == ["T-2"]
        with Session(engine) as session, session.begin():
            session.execute(text("TRUNCATE events"))
        wait_until(lambda: is_indexed(engine), process)
        with Session(engine) as session:
            assert shop.search(session, "black tea") == ["T-1", "T-2"]


def test_the_index_goes_on_after_a_new_column_and_stops_without_one_that_it_uses(consumer, engine, dsn):
    with running("shop.py", "index", dsn) as process:
        wait_until(lambda: is_indexed(engine), process)
        with Session(engine) as session, session.begin():
            session.execute(text("ALTER TABLE products ADD COLUMN brand text NOT NULL DEFAULT 'none'"))
            session.execute(text("UPDATE products SET name = 'Nilgiri'"))
        wait_until(lambda: is_indexed(engine), process)
        with Session(engine) as session, session.begin():
            session.execute(text("ALTER TABLE products RENAME COLUMN tags TO labels"))
        assert process.wait(PATIENCE_S) == 1


def test_the_index_is_killed_at_every_step_in_turn(consumer, engine, dsn):
    for step in STEPS:
        command = [sys.executable, "-m", "tests.examples.dying", "shop.py", step, "3", "index", dsn]
        with busy(engine):
            result = subprocess.run(command, cwd=ROOT, check=False, timeout=PATIENCE_S)
        assert result.returncode == -9
    with running("shop.py", "index", dsn) as process:
        wait_until(lambda: is_indexed(engine), process)


def test_both_are_killed_again_and_again_while_the_shop_goes_on(consumer, engine, dsn, redis, redis_url):
    with busy(engine) as writers:
        for number in range(1, KILLS + 1):
            enough = TRANSACTIONS * number // (KILLS + 1)
            with running("shop.py", "cache", dsn, redis_url) as cache, running("shop.py", "index", dsn) as index:
                wait_until(lambda enough=enough: writers.done >= enough, cache)  # type: ignore[misc]
                if number == 2:
                    with Session(engine) as session, session.begin():
                        session.execute(text("ALTER TABLE products ADD COLUMN brand text NOT NULL DEFAULT 'none'"))
                cache.kill()
                index.kill()
        wait_until(lambda: writers.done >= TRANSACTIONS)
    expected = in_database(engine)
    with running("shop.py", "cache", dsn, redis_url) as cache, running("shop.py", "index", dsn) as index:
        wait_until(lambda: in_cache(redis, list(expected)) == expected, cache)
        wait_until(lambda: is_indexed(engine), index)
    assert set(redis.hkeys(shop.PRODUCTS)) == expected.keys()
    assert set(redis.hkeys(shop.PRICES)) == {sku for sku, item in expected.items() if item and item.price is not None}
    assert {json.loads(row)["brand"] for row in redis.hvals(shop.PRODUCTS)} == {"none"}
