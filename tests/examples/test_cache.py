"""The cache: the race between readers and the watcher, and what becomes of it when either is killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from docs.examples import cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis

    from pgdoc.server import LocalServer

OLD, NEW = {"price": 1}, {"price": 2}
FOREIGN_TOKEN = "0/4231D60.0/3C245F0.1.0.7711260029669233124.1"  # noqa: S105 (of a cluster that is not here)


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(dsn) as store:
        store["products"].insert("p", OLD)
        yield store


@pytest.fixture
def watcher(store: pgdoc.Store, redis: Redis) -> Iterator[Watcher]:
    watcher = Watcher(store, redis)
    watcher.go_live()
    yield watcher
    watcher.follower.close()


class Watcher:
    """The watcher of the program, one change at a time."""

    def __init__(self, store: pgdoc.Store, redis: Redis) -> None:
        self.store, self.redis = store, redis
        self.follower = cache.follow(store, redis)

    def handle(self, document_id: str | None) -> None:
        """Handle what comes, up to a change of this document; `None` for one of the collection."""
        for event in self.follower:
            if event.event_type != "snapshot" and event.document_id == document_id:
                return

    def go_live(self) -> None:
        while not self.redis.exists(cache.WATCHED):
            self.store["products"].replace("tick", {}, upsert=True)
            self.handle("tick")


class Overtaken:
    """A collection whose every reader is held up behind the database's answer, while something happens."""

    def __init__(self, products: pgdoc.Collection, meanwhile: Callable[[], object]) -> None:
        self.products, self.meanwhile = products, meanwhile

    def get(self, product_id: str) -> pgdoc.Document | None:
        document = self.products.get(product_id)
        self.meanwhile()
        return document


def read_naively(redis: Redis, products: Any, product_id: str) -> dict[str, Any] | None:
    """Fill where there is nothing, as most caches do; their watcher deletes the key of what was changed."""
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
    """Fill with what was read, unless a higher version is there; its watcher writes every change down."""
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
    """A reader has the old product in its hands while the change of it is handled, and fills the cache then."""

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

    def by_version(self, store, redis, change, changes):
        products = store["products"]
        with products.watch() as stream:

            def meanwhile():
                change(products)
                for _ in range(changes):
                    event = stream.next()
                    redis.delete(f"product:{event.document_id}")
                    if event.full_document:
                        write_by_version(redis, event.full_document)

            read_by_version(redis, Overtaken(products, meanwhile), "p")
        return read_by_version(redis, products, "p")

    @pytest.mark.parametrize("change", [update, insert_anew])
    def test_ours_is_never(self, store, redis, watcher, change):
        products = store["products"]
        redis.delete("product:p")  # its time was over

        def meanwhile():
            change(products)
            watcher.handle("p")
            while cache.read(redis, products, "p") != NEW:
                watcher.handle("p")

        assert cache.read(redis, Overtaken(products, meanwhile), "p") == OLD  # it was, when it was asked
        assert cache.read(redis, products, "p") == NEW

    def test_ours_is_never_where_the_cache_is_emptied_meanwhile(self, store, redis, watcher):
        """What was read before is not filled into a cache that has begun anew."""
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


def test_an_event_that_arrives_before_its_commit_is_visible(private_server: LocalServer, private_dsn: str, redis: Redis):
    """A commit that waits for a standby is streamed, and nobody else sees it: readers would fill with what was."""
    with (
        pgdoc.Store(private_dsn) as store,
        psycopg.connect(private_dsn, autocommit=True) as admin,
        psycopg.connect(private_dsn) as writer,
    ):
        products = store["products"]
        products.insert("p", OLD)
        watcher = Watcher(store, redis)
        watcher.go_live()
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")
        ...
