# Written by .ci/twins.py from tests/integration/_async/test_mirror.py: change that file, and run it.
"""Mirrors: a mapping that follows a collection or a table."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.errors import (
    CollectionNotFound,
    InvalidFilter,
    InvalidInput,
    InvalidResumeToken,
    StreamClosed,
    StreamError,
    TableRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import Mirror


def in_another_thread(function: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_mirror_is_a_mapping_of_the_documents_that_match(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        products = store["products"]
        products.insert("a", {"price": 1})
        products.insert("b", {"price": 2})
        with products.mirror({"price": {"$gt": 1}}) as mirror:
            assert (list(mirror), len(mirror), "a" in mirror, "b" in mirror) == (["b"], 1, False, True)
            assert mirror["b"] == products.get("b")
            assert (mirror.get("a"), mirror.get("b", None) is mirror["b"]) == (None, True)
            products.update("a", {"$set": {"price": 3}})
            products.delete("b")
            mirror.wait_for()
            assert {key: document["price"] for key, document in mirror.items()} == {"a": 3}
            assert [document.version for document in mirror.values()] == [2]
            assert mirror == mirror.copy()
            with pytest.raises(KeyError):
                mirror["b"]
            assert repr(mirror).endswith("Mirror of 'products': 1 documents>")


def test_waiting_for_a_write_lets_the_mirror_have_it(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store.mirror("products") as mirror:
        for number in range(20):
            with store.transaction() as tx:
                tx["products"].replace("a", {"price": number}, upsert=True)
            mirror.wait_for(tx.lsn())
            assert mirror["a"]["price"] == number
            assert mirror.resume_token.lsn >= tx.lsn()
        mirror.wait_for(str(store.now()))
        with pytest.raises(InvalidInput):
            mirror.wait_for("x")
        with pytest.raises(InvalidResumeToken, match="beyond the end"):
            mirror.wait_for("FF/0")


def test_any_thread_can_read_a_mirror(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store.mirror("products") as mirror:
        store["products"].insert("a", {"price": 1})
        mirror.wait_for()
        assert in_another_thread(lambda: mirror["a"].data) == {"price": 1}
        assert in_another_thread(lambda: list(mirror)) == ["a"]


def test_a_document_is_the_same_object_until_it_changes(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store.mirror("products") as mirror:
        store["products"].insert("a", {"price": 1})
        store["products"].insert("b", {"price": 1})
        mirror.wait_for()
        first, other = mirror["a"], mirror["b"]
        store["products"].update("a", {"$set": {"price": 2}})
        mirror.wait_for()
        assert (first["price"], mirror["a"]["price"], mirror["b"] is other) == (1, 2, True)


def test_after_close_the_documents_stay(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store["products"].insert("a", {"price": 1})
        with store.mirror("products") as mirror:
            pass
        assert (mirror.closed, mirror["a"]["price"]) == (True, 1)
        token = mirror.resume_token
        store["products"].delete("a")
        with pytest.raises(StreamClosed):
            mirror.wait_for()
        assert ("a" in mirror, mirror.resume_token) == (True, token)
        mirror.close()


def test_a_closed_store_ends_its_mirrors_which_keep_the_documents(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store["products"].insert("a", {"price": 1})
        mirror = store.mirror("products")
    assert (mirror.closed, mirror["a"]["price"]) == (True, 1)


def dropped(store: Store, mirror: Mirror[Any]) -> None:
    store.drop_collection("products")
    with pytest.raises(CollectionNotFound, match="dropped"):
        mirror.wait_for()


def test_a_mirror_whose_collection_is_dropped_says_so_at_each_access(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        store["products"].insert("a", {"price": 1})
        with store.mirror("products") as mirror:
            dropped(store, mirror)
            for access in (lambda: mirror["a"], lambda: "a" in mirror, lambda: len(mirror), lambda: list(mirror)):
                with pytest.raises(CollectionNotFound, match="dropped"):
                    access()
            assert mirror.closed


def test_a_mirror_follows_a_watched_table(dsn: str) -> None:
    with (
        psycopg.Connection.connect(dsn, autocommit=True) as connection,
        Store(dsn) as store,
    ):
        connection.execute("CREATE TABLE public.products (id int PRIMARY KEY, price numeric)")
        connection.execute("INSERT INTO public.products VALUES (1, 1.5), (2, 3)")
        with pytest.raises(TableRefused):
            store.mirror("public.products")
        store.add_table("public.products")
        with store.mirror("public.products", {"price": {"$gt": 1}}) as mirror:
            assert {key: row["price"] for key, row in mirror.items()} == {"1": 1.5, "2": 3}
            connection.execute("UPDATE public.products SET price = 0.5 WHERE id = 1")
            connection.execute("INSERT INTO public.products VALUES (3, 7)")
            mirror.wait_for()
            assert sorted(mirror) == ["2", "3"]


@dataclass
class Product:
    """The model of the products."""

    price: int


def test_a_mirror_of_a_typed_collection_has_its_models(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        products = store.collection("products", Product)
        products.insert("a", Product(1))
        with products.mirror({"price": {"$gt": 0}}) as mirror, store.mirror("products") as plain:
            products.insert("b", Product(2))
            mirror.wait_for()
            plain.wait_for()
            assert {key: document.data for key, document in mirror.items()} == {"a": Product(1), "b": Product(2)}
            assert plain["b"].data == {"price": 2}


def test_a_mirror_that_is_not_possible_is_refused(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with pytest.raises(InvalidFilter):
            store.mirror("products", {"$no": 1})
        with store.transaction() as tx:
            with pytest.raises(StreamError, match="inside a transaction"):
                tx["products"].mirror()
