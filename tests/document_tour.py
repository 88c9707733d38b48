"""A tour through the calls of a store, whose answers must not depend on the settings of the session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc.errors import DuplicateDocument, InvalidUpdate, VersionConflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent, Document, Store

DOCUMENTS: dict[str, dict[str, Any]] = {
    "é-2": {"name": "Zürich", "sign": "€", "tags": ["a", "ü"]},
    "back\\slash": {"name": "C:\\new\\table", "quote": "'\"", "tags": ["\\", None]},
    "NULL": {"name": None, "tags": ["NULL", "null", None, ""]},
    "snow ☃": {"name": "\U0001f600", "n": 0.1, "tags": []},
    "numbers": {"n": 12345678901234567890, "float": 1.7976931348623157e308, "small": 5e-324, "third": 1 / 3},
    "deep": {"a": {"b": [{"c": 1}, {"c": "x"}]}, "name": "%s {table} $1"},
}
FILTERS: list[dict[str, Any]] = [
    {"name": "Zürich"},
    {"name": {"$regex": r"^C:\\new"}},
    {"name": None},
    {"tags": "ü"},
    {"tags": {"$in": ["\\", "NULL", None]}},
    {"tags": {"$all": ["NULL", ""]}},
    {"third": 1 / 3},
    {"n": {"$gt": 0.05}},
    {"a.b.c": {"$in": [1, "y"]}},
    {"a.b": {"$elemMatch": {"c": "x"}}},
    {"$or": [{"_id": "NULL"}, {"sign": "€"}, {"name": {"$exists": False}}]},
    {"_id": {"$regex": "☃|é"}},
    {"tags": {"$size": 0}},
    {"float": {"$type": "double"}},
]
MANY = 250


def take_tour(store: Store) -> list[Any]:
    """Make every kind of document call; return the answers."""
    answers: list[Any] = []
    answers += _write(store)
    store["docs"].create_index("tags")
    store["docs"].create_index("name")
    store["docs"].create_index("n", unique=False)
    store["many"].insert_many((f"{n:03}", {"n": n, "tags": [n % 3, "x"], "kind": f"k{n % 7}"}) for n in range(MANY))
    for path in ("tags", "n", "$**"):
        store["many"].create_index(path)
    answers += [index.name for index in store["many"].indexes()]
    answers += _read(store)
    answers += _change(store)
    answers += _refuse(store)
    answers += [store.collections(), store["docs"].drop_index("name")]
    store.rename_collection("many", "more")
    answers += [store.drop_collection("more"), store.collections()]
    return answers


def _write(store: Store) -> Iterator[Any]:
    before = datetime.now(UTC) - timedelta(minutes=1)
    first, *others = DOCUMENTS.items()
    inserted = store["docs"].insert(*first)
    assert before < inserted.created_at < before + timedelta(minutes=3)
    yield _plain(inserted)
    yield store["docs"].insert_many(others)
    for name, data in DOCUMENTS.items():
        found = store["docs"].get(name)
        assert found is not None
        assert before < found.created_at <= found.updated_at < before + timedelta(minutes=3)
        assert found.data == data
        yield _plain(found)
    with store.bulk({"user": "Zoë \\ '"}) as bulk:
        bulk["docs"].update("numbers", {"$inc": {"n": 1}})
        bulk["docs"].update("new €", {"$set": {"bulk": "ß"}}, upsert=True)
        bulk["docs"].delete("deep")
    yield bulk.result
    store["docs"].insert("deep", DOCUMENTS["deep"])


def _read(store: Store) -> Iterator[Any]:
    for wanted in FILTERS:
        yield sorted(document.id for document in store["docs"].find(wanted))
        yield store["docs"].count(wanted)
    yield [document.id for document in store["docs"].find(sort=["name", "-_id"])]
    yield store["docs"].distinct("tags")
    many = store["many"]
    for wanted in (
        {"tags": 1},
        {"tags": "x"},
        {"$or": [{"n": n} for n in range(100)]},
        {"n": {"$in": list(range(0, MANY, 2))}},
        {"tags": {"$in": [0, 1]}, "kind": "k1"},
    ):
        yield many.count(wanted), sorted(document.id for document in many.find(wanted))
    yield [document.id for document in many.find({"n": {"$gte": 240}}, sort="-n", limit=5)]
    yield [document.id for document in many.find({"tags": 1}, sort=["kind", "n"], limit=5, skip=2)]
    yield [document.id for document in many.find(sort="n")] == [f"{n:03}" for n in range(MANY)]
    yield [_plain(document) for document in store["docs"].find(fields=["name", "a.b"], sort="_id")]
    with store.transaction() as tx:
        yield sum(1 for _ in tx["many"].find())


def _change(store: Store) -> Iterator[Any]:
    docs = store["docs"]
    now = datetime.now(UTC)
    dated = docs.update("é-2", {"$currentDate": {"at": True}, "$push": {"tags": "€"}})
    assert dated is not None
    at = datetime.fromisoformat(dated.data.pop("at"))
    assert now - timedelta(minutes=1) < at < now + timedelta(minutes=1)
    yield _plain(dated)
    yield _plain(docs.update("numbers", {"$mul": {"third": 3}, "$min": {"small": 0.5}}))
    yield docs.update_many({"tags": "NULL"}, {"$pull": {"tags": None}, "$set": {"name": "\\x00"}})
    yield _plain(docs.update_one({"n": {"$gt": 0}}, {"$set": {"claimed": True}}, sort="-n", skip_locked=True))
    yield _plain(docs.replace("NULL", {"Größe": "ÿ"}, if_version=2))
    with store.transaction({"by": "née"}) as tx:
        tx["docs"].insert("tx", {"€": "€"})
        yield tx["docs"].update_many({}, {"$set": {"seen.é": True}})
    yield _plain(docs.delete_one({"_id": "tx"}))
    yield docs.delete("new €"), docs.delete_many({"n": {"$lt": 1}})


def _refuse(store: Store) -> Iterator[Any]:
    for error, call in (
        (DuplicateDocument, lambda: store["docs"].insert("é-2", {})),
        (DuplicateDocument, lambda: store["docs"].insert_many([("ok", {}), ("é-2", {})])),
        (VersionConflict, lambda: store["docs"].update("é-2", {"$set": {"a": 1}}, if_version=99)),
        (InvalidUpdate, lambda: store["docs"].update("é-2", {"$inc": {"name": 1}})),
    ):
        with pytest.raises(error) as caught:
            call()
        yield getattr(caught.value, "document_id", None)
    yield store["docs"].get("ok")


def take_stream_tour(store: Store) -> list[Any]:
    """Write before, while and after a stream and a consumer are open; return the events."""
    store["watched"].insert_many([("é", {"€": "\\"}), ("x", {"n": 0.1})])
    seen: list[Any] = []
    with store["watched"].watch(snapshot=True) as stream, store["watched"].watch(consumer="tour") as consumer:
        now = datetime.now(UTC)
        events = [_next(stream), _next(stream)]
        with store.transaction({"user": "Zoë"}) as tx:
            tx["watched"].update("é", {"$set": {"Größe": 1 / 3, "x": "'\""}})
            tx["watched"].delete("x")
        events += [_next(stream), _next(stream)]
        for event in [*events, _next(consumer), _next(consumer)]:
            assert abs(event.timestamp - now) < timedelta(minutes=1)
            seen.append(_plain_event(event))
        token = events[-1].resume_token
        (status,) = store.consumers()
        seen += [status.name, status.owner_pid is not None, status.lag < timedelta(minutes=1)]
    with store["watched"].watch(resume_after=token) as stream:
        store["watched"].insert("later", {"ü": [None]})
        seen.append(_plain_event(_next(stream)))
    assert store.drop_consumer("tour")
    history = store.history()
    return [*seen, history.time, history.oldest is not None, store.status().problem]


def _next(stream: Any) -> ChangeEvent:
    event = stream.next(timeout=20.0)
    assert event is not None
    return event  # type: ignore[no-any-return]


def _plain(document: Document | None) -> Any:
    return document and (document.id, document.data, document.version)


def _plain_event(event: ChangeEvent) -> Any:
    images = (event.full_document, event.full_document_before_change)
    for image in images:
        if image is not None:
            assert abs(image.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    changed = event.update_description and event.update_description.updated_fields
    return event.event_type.value, event.document_id, *map(_plain, images), changed, event.metadata
