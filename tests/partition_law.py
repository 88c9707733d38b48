"""The law of partitions: a collection with partitions behaves as one without.

`Twins` makes the same random calls on one of each, and compares what they return, what they leave, and their events.
Positions, times, and the order of different documents in one statement may differ.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import BulkError, PgdocError

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from pgdoc import ChangeEvent, Collection, Document, Store

PATIENCE_S: Final = 60.0
_END: Final = "end"
_KEYS: Final = [f"k{number}" for number in range(24)]


class Twins:
    """The collections `plain` and `parted`, which get the same calls.

    Args:
        store: that of the collections.
        seed: of the calls.
    """

    def __init__(self, store: Store, seed: int, partitions: int) -> None:
        self._store, self._random = store, random.Random(seed)
        self._collections = store.create_collection("plain"), store.create_collection("parted", partitions=partitions)

    def check(self, connection: psycopg.Connection, calls: int) -> None:
        """Make random calls, and compare everything; `connection` has the schema as its search_path."""
        with self._store.watch() as stream:
            for number in range(calls):
                self._call()
                if number % 40 == 39:
                    for collection in self._collections:
                        connection.execute(f"TRUNCATE {collection.name}".encode())
            events: dict[str, list[ChangeEvent]] = defaultdict(list)
            for collection in self._collections:
                collection.insert(_END, {})
            while sum(found[-1].document_id == _END for found in events.values()) < 2:
                event = stream.next(timeout=PATIENCE_S)
                assert event is not None
                events[event.collection].append(event)
        plain, parted = (_by_document(events[collection.name]) for collection in self._collections)
        assert plain == parted
        assert any(kind == "truncate" for kind, *_ in plain[None])
        assert len(plain) > len(_KEYS) / 2

    def _call(self) -> None:
        call = self._random.choice([self._write, self._write, self._write_many, self._read, self._bulk, self._transact])
        seed = self._random.random()
        found = [self._outcome(call, collection, seed) for collection in self._collections]
        assert found[0] == found[1], f"{call.__name__} {seed}"
        assert _contents(self._collections[0]) == _contents(self._collections[1])

    def _outcome(self, call: Callable[[Any, random.Random], Any], collection: Collection, seed: float) -> Any:
        try:
            return call(collection, random.Random(seed))
        except PgdocError as exc:
            return type(
                exc
            ).__name__  # its message names the first document at fault, and partitions have another order

    def _write(self, on: Any, choose: random.Random) -> Any:
        key, data = choose.choice(_KEYS), {"n": choose.randrange(9), "tags": [choose.randrange(3)]}
        upsert = choose.random() < 0.5
        calls: list[Callable[[], Any]] = [
            lambda: on.insert(key, data),
            lambda: on.update(key, {"$inc": {"n": 1}}, upsert=upsert),
            lambda: on.update(key, {"$push": {"n": 1}}),  # does not fit
            lambda: on.replace(key, data, upsert=upsert),
            lambda: on.replace(key, data, if_version=2),
            lambda: on.delete(key),
            lambda: on.update_one({"n": data["n"]}, {"$set": data}, sort=["-n", "_id"]),
            lambda: on.replace_one({"_id": key}, data),
            lambda: on.delete_one({"n": {"$gt": data["n"]}}, sort="_id"),
        ]
        return _plain(choose.choice(calls)())

    def _write_many(self, on: Any, choose: random.Random) -> Any:
        n = choose.randrange(9)
        keys = choose.sample(_KEYS, 5)
        calls: list[Callable[[], Any]] = [
            lambda: on.update_many({"n": {"$gte": n}}, {"$inc": {"n": -1}, "$set": {"text": "x" * 3_000}}),
            lambda: on.update_many({"tags": n % 3}, {"$unset": {"text": ""}}),
            lambda: on.delete_many({"n": n}),
            lambda: on.insert_many([(key, {"n": n, "tags": []}) for key in keys]),
        ]
        return choose.choice(calls)()

    def _read(self, on: Any, choose: random.Random) -> Any:
        n = choose.randrange(9)
        return (
            [_plain(found) for found in on.find({"n": {"$gte": n}}, sort=["-n", "_id"], limit=n + 1, skip=n % 2)],
            [found.id for found in on.find({"tags": n % 3}, sort="_id")],
            on.count({"n": {"$in": [n, n + 1]}}),
            sorted(on.distinct("n")),
            _plain(on.get(choose.choice(_KEYS))),
        )

    def _bulk(self, on: Any, choose: random.Random) -> Any:
        keys = choose.sample(_KEYS, 6)
        try:
            with self._store.bulk(ordered=choose.random() < 0.5) as bulk:
                for key in keys:
                    bulk[on.name].update(key, {"$inc": {"n": 1}}, upsert=True)
                    bulk[on.name].replace(key, {"n": choose.randrange(9)}, upsert=True)
                bulk[on.name].insert(keys[0], {})  # a duplicate, at which an ordered bulk ends
                bulk[on.name].delete(keys[1])
        except BulkError as exc:
            return type(exc).__name__
        return None

    def _transact(self, on: Any, choose: random.Random) -> Any:
        with contextlib.suppress(ZeroDivisionError), self._store.transaction() as tx:
            found = self._write_many(tx[on.name], choose)
            if choose.random() < 0.4:
                raise ZeroDivisionError
            return found
        return "rolled back"


def _plain(found: Document | Any) -> Any:
    return (found.id, found.data, found.version) if hasattr(found, "data") else found


def _contents(collection: Collection) -> list[Any]:
    return [_plain(document) for document in collection.find(sort="_id")]


_IMAGES: Final = "full_document", "full_document_before_change"


def _by_document(events: list[ChangeEvent]) -> dict[str | None, list[Any]]:
    """Return what the events say, by document; each truncation under `None` with the documents that came before it."""
    found: dict[str | None, list[Any]] = defaultdict(list)
    for event in events:
        truncations = len(found[None]) if event.document_id is not None else None
        found[event.document_id].append((str(event.event_type), truncations, *_said(event)))
    return dict(found)


def _said(event: ChangeEvent) -> list[Any]:
    about = json.loads(event.to_json())
    images = [about[name] and (about[name]["data"], about[name]["version"]) for name in _IMAGES]
    return [*images, about["update_description"], about["metadata"], about["renamed_to"]]
