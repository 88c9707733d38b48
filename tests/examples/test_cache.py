"""The cache: the race between readers and the watcher, and what happens when either is killed."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from docs.examples import cache
from tests.examples.programs import PATIENCE_S
from tests.synchronous import no_standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from redis import Redis

    from pgdoc.server import LocalServer

OLD, NEW = {"price": 1}, {"price": 2}
FOREIGN_TOKEN = "0/4231D60.0/3C245F0.1.0.7711260029669233124.1"  # noqa: S105 (of another cluster)


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(dsn) as store:
        store["products"].insert("p", OLD)
        yield store


@pytest.fixture
def watcher(store: pgdoc.Store, redis: Redis) -> Iterator[Watcher]:
    with contextlib.closing(Watcher(store, redis)) as watcher:
        watcher.go_live()
        yield watcher


class Watcher:
    """The program's watcher, run one change at a time."""

    def __init__(self, store: pgdoc.Store, redis: Redis) -> None:
        self.store, self.redis = store, redis
        self.follower = cache.follow(store, redis)

    def close(self) -> None:
        self.follower.close()  # type: ignore[attr-defined]

    def handle(self, document_id: str | None) -> None:
        """Handle changes up to one of this document, or of the whole collection if `None`."""
        for event in self.follower:
            if event.document_id == document_id:
                return

    def go_live(self) -> None:
        while not self.redis.exists(cache.WATCHED):
            self.store["products"].replace("tick", {}, upsert=True)
            self.handle("tick")


class Overtaken(pgdoc.Collection):
    """A collection that calls `meanwhile` between the database's answer and the return to the reader."""

    def __init__(self, products: pgdoc.Collection, meanwhile: Callable[[], object]) -> None:
        self.products, self.meanwhile = products, meanwhile

    def get(self, product_id: str | UUID) -> pgdoc.Document | None:
        document = self.products.get(product_id)
        self.meanwhile()
        return document


def read_naively(redis: Redis, products: Any, product_id: str) -> dict[str, Any] | None:
    """Fill a missing entry, as most caches do. Their watcher deletes the key of a changed document."""
    found: Any = redis.get(f"product:{product_id}")
    if found is None:
        document = products.get(product_id)
        found = json.dumps(document and document.data)
        redis.set(f"product:{product_id}", found)
    data: dict[str, Any] | None = json.loads(found)
    return data


KEEP_HIGHEST = """
local kept = redis.call('GET', KEYS[1])
if kept and cjson.decode(kept).version > tonumber(ARGV[1]) then return kept end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
"""


def read_by_version(redis: Redis, products: Any, product_id: str) -> dict[str, Any] | None:
    """Fill the entry unless it has a higher version. The watcher of such a cache stores every change."""
    found: Any = redis.get(f"product:{product_id}")
    if found is None:
        document = products.get(product_id)
        found = write_by_version(redis, document)
    data: dict[str, Any] | None = json.loads(found)["data"]
    return data


def write_by_version(redis: Redis, document: pgdoc.Document) -> Any:
    text = json.dumps({"version": document.version, "data": document.data})
    return redis.eval(KEEP_HIGHEST, 1, f"product:{document.id}", document.version, text)


def update(products: pgdoc.Collection) -> None:
    products.replace("p", NEW)


def insert_anew(products: pgdoc.Collection) -> None:
    products.delete("p")
    products.insert("p", NEW)


class TestTheRace:
    """A reader reads the old product, the watcher handles a change of it, and then the reader fills the cache."""

    def test_a_cache_that_deletes_keys_is_stale(self, store, redis):
        products = store["products"]
        with products.watch() as stream:

            def meanwhile():
                update(products)
                redis.delete(f"product:{stream.next().document_id}")

            read_naively(redis, Overtaken(products, meanwhile), "p")
        assert read_naively(redis, products, "p") == OLD

    def test_one_that_keeps_the_highest_version_is_not(self, store, redis):
        assert self.by_version(store, redis, update, changes=1) == NEW

    def test_but_is_where_a_product_is_deleted_and_inserted_anew(self, store, redis):
        store["products"].update("p", {"$set": {"more": True}})
        store["products"].replace("p", OLD)
        assert self.by_version(store, redis, insert_anew, changes=2) == OLD

    def by_version(
        self, store: pgdoc.Store, redis: Redis, change: Callable[[pgdoc.Collection], None], changes: int
    ) -> Any:
        products = store["products"]
        with products.watch() as stream:

            def meanwhile():
                change(products)
                for _ in range(changes):
                    event = next(stream)
                    redis.delete(f"product:{event.document_id}")
                    if event.full_document:
                        write_by_version(redis, event.full_document)

            read_by_version(redis, Overtaken(products, meanwhile), "p")
        return read_by_version(redis, products, "p")

    @pytest.mark.parametrize("change", [update, insert_anew])
    def test_ours_is_never(self, store, redis, watcher, change):
        products = store["products"]
        redis.delete("product:p")  # it expired

        def meanwhile():
            change(products)
            watcher.handle("p")
            while cache.read(redis, products, "p") != NEW:
                watcher.handle("p")

        assert cache.read(redis, Overtaken(products, meanwhile), "p") == OLD  # current when it was queried
        assert cache.read(redis, products, "p") == NEW

    def test_ours_is_never_where_the_cache_is_emptied_meanwhile(self, store, redis, watcher):
        """A reader does not store what it read before the cache was emptied."""
        products = store["products"]
        redis.delete("product:p")

        def meanwhile():
            products.delete("p")
            redis.flushall()
            with pytest.raises(RuntimeError, match="Redis restarted"):
                watcher.handle("p")
            watcher.follower = cache.follow(store, redis)
            watcher.go_live()

        cache.read(redis, Overtaken(products, meanwhile), "p")
        assert cache.read(redis, products, "p") is None


def test_an_event_that_arrives_before_its_commit_is_visible(
    private_server: LocalServer, private_dsn: str, redis: Redis
) -> None:
    """The event of a commit that waits for a standby arrives while queries still return the old product."""
    with (
        pgdoc.Store(private_dsn) as store,
        contextlib.closing(Watcher(store, redis)) as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        products = store["products"]
        products.insert("p", OLD)
        watcher.go_live()
        redis.delete("product:p")
        with no_standby(private_dsn):
            writing = pool.submit(_write_new, private_dsn)
            watcher.handle("p")
            assert not writing.done()
            document = products.get("p")
            assert document is not None
            assert document.data == OLD
            assert cache.read(redis, products, "p") == NEW
        writing.result(PATIENCE_S)
        assert cache.read(redis, products, "p") == NEW


def _write_new(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE docs.products SET data = %s::jsonb WHERE id = 'p'", [json.dumps(NEW)])


def test_a_reader_without_a_watcher_reads_the_database(store, redis, watcher):
    redis.set("product:p", json.dumps(OLD))
    store["products"].replace("p", NEW)
    redis.delete(cache.WATCHED)  # it expires when no watcher renews it
    assert cache.read(redis, store["products"], "p") == NEW


def test_a_product_that_is_not_there_is_cached_as_such(store, redis, watcher):
    assert cache.read(redis, store["products"], "q") is None
    assert redis.get("product:q") == "null"
    store["products"].insert("q", NEW)
    watcher.handle("q")
    assert cache.read(redis, store["products"], "q") == NEW


def test_numbers_that_json_has_no_form_for_are_not_cached(store, redis, watcher):
    store["products"].replace("p", {"price": Decimal("1e-400")})
    watcher.handle("p")
    assert redis.get("product:p") == cache.NOT_CACHED
    assert cache.read(redis, store["products"], "p") == {"price": Decimal("1e-400")}


def test_of_two_watchers_one_ends(store, redis, watcher):
    with contextlib.closing(Watcher(store, redis)) as other:
        store["products"].replace("p", NEW)
        other.handle("p")
        with pytest.raises(RuntimeError, match="another watcher is running"):
            watcher.handle("p")
    assert cache.read(redis, store["products"], "p") == NEW


def test_a_collection_that_is_emptied_empties_the_cache(store, redis, watcher, dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE docs.products")
    watcher.handle(None)
    assert redis.get("product:p") is None
    assert cache.read(redis, store["products"], "p") is None


def test_the_cache_begins_again_after_lost_history(store, redis):
    redis.set(cache.POSITION, FOREIGN_TOKEN)
    redis.set("product:gone", json.dumps(OLD))
    with contextlib.closing(Watcher(store, redis)) as watcher:
        watcher.go_live()
        assert cache.read(redis, store["products"], "gone") is None
        assert redis.get("product:p") == json.dumps(OLD)
