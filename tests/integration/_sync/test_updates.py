# Written by .ci/twins.py from tests/integration/_async/test_updates.py: change that file, and run it.
"""Updates and deletes of one document, of the first match, and of all matches."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store, metadata
from pgdoc._sync.connections import Connections
from pgdoc.errors import CollectionNotFound, InvalidFilter, InvalidUpdate
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from pgdoc import Collection

DATA: dict[str, Any] = {"n": 5, "name": "a", "list": [3, 1, {"k": 1}], "deep": {"list": [[1], [2]], "x": None}}

CHANGING: dict[str, dict[str, Any]] = {
    "$set": {"deep.x": 1},
    "$unset": {"name": ""},
    "$inc": {"n": 1},
    "$mul": {"n": 2},
    "$min": {"n": 4},
    "$max": {"n": 6},
    "$bit": {"n": {"xor": 1}},
    "$rename": {"deep.x": "y"},
    "$currentDate": {"at": True},
    "$push": {"list": {"$each": [9, 8], "$sort": 1, "$slice": -3, "$position": 1}},
    "$addToSet": {"list": {"$each": [3, {"k": 1}, 4]}},
    "$pop": {"list": -1},
    "$pull": {"list": {"k": {"$gt": 0}}},
    "$pullAll": {"list": [1, 3]},
}

UNCHANGING: dict[str, dict[str, Any]] = {
    "$set": {"name": "a", "n": 5.0},
    "$unset": {"none": "", "deep.none.x": ""},
    "$inc": {"n": 0},
    "$mul": {"n": 1},
    "$min": {"n": 5},
    "$max": {"n": 4},
    "$bit": {"n": {"and": 7}},
    "$rename": {"none": "name"},
    "$setOnInsert": {"n": 6},
    "$push": {"list": {"$each": []}},
    "$addToSet": {"list": {"$each": [3, {"k": 1.0}]}},
    "$pop": {"none": -1},
    "$pull": {"list": {"k": 2}},
    "$pullAll": {"list": [7]},
}

MISFITS: dict[str, dict[str, Any]] = {
    "$set": {"name.x": 1},
    "$inc": {"name": 1},
    "$mul": {"deep.x": 2},
    "$min": {"name.x": 2},
    "$max": {"n.x": 2},
    "$bit": {"name": {"and": 7}},
    "$rename": {"list.0": "first"},
    "$currentDate": {"n.at": True},
    "$push": {"n": 1},
    "$addToSet": {"n": 1},
    "$pop": {"n": 1},
    "$pull": {"name": {"$gt": 1}},
    "$pullAll": {"name": [1]},
}


def ids(*found: Any) -> list[str | None]:
    return [document and document.id for document in found]


def test_each_operator_changes_the_document_in_one_write(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = store.create_collection("docs")
        with recorded(own_schema["conninfo"]) as changes:
            for operator, fields in CHANGING.items():
                docs.insert(operator, DATA)
                updated = docs.update(operator, {operator: fields})
                assert changes() == ["insert", "end", "update", "end"]
                assert updated is not None
                assert updated == docs.get(operator)
                assert updated.data != DATA
                assert updated.version == 2


def test_updates_leave_the_expected_documents(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["docs"].insert("a", DATA)
        for operator in ("$push", "$addToSet", "$pull", "$rename", "$mul"):
            updated = store["docs"].update("a", {operator: CHANGING[operator]})
        assert updated is not None
        assert updated.data == {"n": 10, "name": "a", "list": [8, 9, 3, 4], "deep": {"list": [[1], [2]]}, "y": None}
        updated = store["docs"].update("a", {"$push": {"deep.list.$[]": 0}, "$pull": {"list": {"$gt": 4}}})
        assert updated is not None
        assert (updated.data["deep"], updated.data["list"]) == ({"list": [[1, 0], [2, 0]]}, [3, 4])


def test_updates_that_change_nothing_write_nothing(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = store["docs"]
        made = docs.insert("a", DATA)
        with recorded(own_schema["conninfo"]) as changes:
            for operator, fields in UNCHANGING.items():
                update = {operator: fields}
                assert docs.update("a", update) == made, operator
                assert docs.update("a", update, upsert=True) == made, operator
                assert docs.update_one({}, update) == made, operator
                assert docs.update_many({}, update) == 0, operator
            assert changes() == []


def test_a_misfit_names_document_operator_and_path(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store, store.transaction() as tx:
        docs = tx["docs"]
        fine = docs.insert("a", {})
        made = docs.insert("the one", DATA)
        calls: list[tuple[Any, Any]] = [(docs.update, "the one"), (docs.update_one, {"n": 5}), (docs.update_many, {})]
        for operator, fields in MISFITS.items():
            for call, where in calls:
                with pytest.raises(InvalidUpdate, match=r"'the one'.*does not fit") as caught:
                    call(where, {"$set": {"new": 1}} | {operator: fields})
                assert (caught.value.operator, caught.value.path) == (operator, next(iter(fields)))
        assert docs.get("a") == fine
        assert docs.get("the one") == made


def test_an_invalid_update_or_filter_is_refused_before_the_collection_is_created(
    own_schema: dict[str, Any],
) -> None:
    with Store(**own_schema) as store:
        docs = store["docs"]
        updates: list[dict[str, Any]] = [{"a": 1}, {"$push": {"": 1}}, {}, {"$inc": {"a": "1"}}]
        for update in updates:
            for change in (docs.update_one, docs.update_many):
                with pytest.raises(InvalidUpdate):
                    change({}, update)
        wrong: dict[str, Any] = {"a": {"$near": 1}}
        for change in (docs.update_one, docs.update_many):
            with pytest.raises(InvalidFilter):
                change(wrong, {"$set": {"a": 1}})
        for delete in (docs.delete_one, docs.delete_many):
            with pytest.raises(InvalidFilter):
                delete(wrong)
        assert store.collections() == []


def test_an_upsert_applies_set_on_insert_only_on_insert(own_schema: dict[str, Any]) -> None:
    update = {"$setOnInsert": {"made.by": "x"}, "$inc": {"n": 1}, "$currentDate": {"made.at": True}}
    with Store(**own_schema) as store:
        made = store["docs"].update("a", update, upsert=True)
        assert made is not None
        assert made.data["made"].pop("by") == "x"
        assert made.data["n"] == 1
        assert datetime.fromisoformat(made.data["made"]["at"]) == made.created_at
        store["docs"].update("a", {"$unset": {"made.by": 1}})
        again = store["docs"].update("a", update, upsert=True)
        assert again is not None
        assert again.data["n"] == 2
        assert list(again.data["made"]) == ["at"]
        assert datetime.fromisoformat(again.data["made"]["at"]) == again.updated_at


def test_an_upsert_that_fits_no_new_document_still_changes_an_existing_one(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = store["docs"]
        with pytest.raises(InvalidUpdate, match="needs an array"):
            docs.update("a", {"$inc": {"list.$[]": 1}}, upsert=True)
        docs.insert("a", {"list": [1, 2]})
        updated = docs.update("a", {"$inc": {"list.$[]": 1}}, upsert=True)
        assert updated is not None
        assert updated.data == {"list": [2, 3]}


def fill(store: Store) -> Collection:
    docs = store.create_collection("docs")
    docs.insert_many([("a", {"n": 3, "k": [1]}), ("b", {"n": 1, "k": [2, 1]}), ("c", {"n": 2}), ("d", {"n": 1})])
    return docs


def test_update_many_changes_all_that_match(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = fill(store)
        assert docs.update_many({"n": {"$lte": 2}}, {"$max": {"n": 2}, "$set": {"%s": "'%s"}}) == 3
        assert [d.data["n"] for d in docs.find(sort="_id")] == [3, 2, 2, 2]
        assert docs.update_many({"n": 2}, {"$set": {"n": 2}}) == 0
        assert docs.update_many({"k": 1}, {"$pull": {"k": 1}}) == 2
        assert docs.update_many({"_id": {"$in": ["a", "z"]}}, {"$push": {"k": 1}}) == 1
        assert [d.version for d in docs.find(sort="_id")] == [3, 3, 2, 2]


def test_update_one_takes_the_first_in_the_order(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = fill(store)
        for skip_locked in (False, True):
            first = docs.update_one({"n": {"$lt": 3}}, {"$inc": {"n": 2}}, sort="n", skip_locked=skip_locked)
            assert first is not None
            assert first == docs.get("d" if skip_locked else "b")
        last = docs.update_one({}, {"$set": {"last": True}}, sort=["-n", "-_id"])
        none = docs.update_one({"n": 99}, {"$set": {"last": True}})
        assert ids(last, none) == ["d", None]


def test_delete_one_and_delete_many(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = fill(store)
        there = docs.get("b")
        assert docs.delete_one({"k": 1}, sort="n") == there
        assert ids(docs.delete_one({"k": 2}), docs.delete_one({}, sort="-n")) == [None, "a"]
        assert docs.delete_many({"n": 7}) == 0
        assert docs.delete_many({"n": {"$in": [1, 2]}}) == 2
        assert docs.count() == 0


def test_without_a_collection_nothing_matches(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = store["docs"]
        assert docs.update_many({}, {"$set": {"a": 1}}) == docs.delete_many({}) == 0
        assert ids(docs.update_one({}, {"$set": {"a": 1}}), docs.delete_one({})) == [None, None]
        assert store.collections() == []
    with Store(**own_schema, auto_create=False) as store:
        docs = store["docs"]
        for update in (docs.update_many, docs.update_one):
            with pytest.raises(CollectionNotFound):
                update({}, {"$set": {"a": 1}})
        for delete in (docs.delete_many, docs.delete_one):
            with pytest.raises(CollectionNotFound):
                delete({})


def test_calls_on_many_documents_carry_metadata(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = fill(store)
        with recorded(own_schema["conninfo"]) as changes:
            with metadata(user="u"):
                docs.update_many({"n": 1}, {"$inc": {"n": 4}})
                assert changes() == [{"user": "u"}, "update", "update", "end"]
                docs.update_one({"n": 3}, {"$inc": {"n": 4}})
                assert changes() == [{"user": "u"}, "update", "end"]
                docs.delete_one({"n": 7})
                assert changes() == [{"user": "u"}, "delete", "end"]
                docs.delete_many({"n": 5})
                assert changes() == [{"user": "u"}, "delete", "delete", "end"]
            docs.update_one({}, {"$inc": {"n": 4}})
            assert docs.delete_many({}) == 1
            assert changes() == ["update", "end", "delete", "end"]


def test_updates_and_deletes_are_part_of_a_transaction(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = fill(store)
        before = [document for document in docs.find()]
        with suppress(ZeroDivisionError):
            with store.transaction(metadata={"user": "u"}) as tx:
                assert tx["docs"].update_many({}, {"$inc": {"n": 1}}) == 4
                assert tx["docs"].delete_many({"n": 2}) == 2
                assert ids(tx["docs"].update_one({"n": 4}, {"$set": {"n": 0}})) == ["a"]
                assert ids(tx["docs"].delete_one({"n": 0})) == ["a"]
                assert tx["docs"].count() == 1
                raise ZeroDivisionError
        assert [document for document in docs.find()] == before


def test_each_call_is_one_round_trip(own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    fetch = Connections.fetch

    def counting(self: Connections, query: bytes, params: Any, **options: Any) -> list[tuple[Any, ...]]:
        sent.append(query)
        return fetch(self, query, params, **options)

    with Store(**own_schema) as store:
        docs = fill(store)
        monkeypatch.setattr(Connections, "fetch", counting)
        for fields in CHANGING.items():
            docs.insert(fields[0], DATA)
            sent.clear()
            docs.update(fields[0], dict([fields]))
            assert len(sent) == 1, fields
        sent.clear()
        docs.update("new", {"$setOnInsert": {"a": 1}, "$pull": {"b": {"c": 1}}}, upsert=True)
        docs.update_many({"n": 1}, {"$inc": {"n": 4}})
        docs.update_one({"n": 3}, {"$inc": {"n": 4}}, sort="n")
        docs.delete_one({"n": 7}, sort="n")
        docs.delete_many({"n": 5})
        assert len(sent) == 5
