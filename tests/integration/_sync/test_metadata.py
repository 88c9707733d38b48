# Written by .ci/twins.py from tests/integration/_async/test_metadata.py: change that file, and run it.
"""The writer's metadata is in the WAL before the change that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store, metadata
from pgdoc.errors import DuplicateDocument, InvalidDocument
from tests.integration.wal import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import Collection


def writes(orders: Collection) -> Iterator[str]:
    """Make every kind of write in turn, and yield the kind of change after each."""
    orders.insert("o-1", {"n": 1})
    yield "insert"
    orders.update("o-1", {"$inc": {"n": 1}})
    yield "update"
    orders.update("o-1", {"$inc": {"n": 1}}, if_version=2)
    yield "update"
    orders.update("o-1", {"$inc": {"n": 1}}, upsert=True)
    yield "update"
    orders.update("o-2", {"$inc": {"n": 1}}, upsert=True)
    yield "insert"
    orders.replace("o-1", {"n": 1})
    yield "update"
    orders.replace("o-1", {"n": 1}, upsert=True)
    yield "update"
    orders.replace("o-3", {"n": 1}, upsert=True)
    yield "insert"
    orders.insert_many([("o-4", {})])
    yield "insert"
    orders.delete("o-1")
    yield "delete"
    orders.delete("o-2", if_version=1)
    yield "delete"


def test_each_write_of_a_metadata_block_emits_it_before_its_change(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes, metadata(user="Ål", n=2**70):
            for kind in writes(orders):
                assert changes() == [{"user": "Ål", "n": 2**70}, kind, "end"]


@pytest.mark.parametrize("name", ["metadata", "carried"])
def test_a_collection_of_any_name_can_be_written_with_metadata(own_schema: dict[str, Any], name: str) -> None:
    with Store(**own_schema) as store:
        orders = store[name]
        with metadata(user="bob"):
            orders.insert("a", {})
            assert orders.update("a", {"$set": {"n": 1}})
            assert orders.replace("a", {"n": 2})
            assert orders.update_many({}, {"$inc": {"n": 1}}) == 1
            assert orders.update_one({}, {"$inc": {"n": 1}})
            assert orders.delete("a")
            assert orders.delete_many({}) == 0


def test_without_metadata_there_is_no_message(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            for kind in writes(orders):
                assert changes() == [kind, "end"]


def test_a_transaction_emits_metadata_once(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            with store.transaction(metadata={"user": "alice"}) as tx:
                kinds = [kind for kind in writes(tx["orders"])]
            assert changes() == [{"user": "alice"}, *kinds, "end"]


def test_metadata_holds_in_and_after_savepoints_that_are_rolled_back(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        orders = store.create_collection("orders")
        orders.insert("o-1", {})
        with recorded(own_schema["conninfo"]) as changes:
            with store.transaction(metadata={"user": "alice"}) as tx:
                with pytest.raises(DuplicateDocument):
                    tx["orders"].insert_many([("o-2", {}), ("o-1", {})])
                tx["orders"].insert("o-3", {})
            assert changes() == [{"user": "alice"}, "insert", "end"]


def test_a_transaction_merges_its_metadata_over_that_of_the_block_around_it(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            with metadata(user="alice", app="shop"):
                with store.transaction(metadata={"user": "bob"}) as tx:
                    tx["orders"].insert("o-1", {})
            assert changes() == [{"user": "bob", "app": "shop"}, "insert", "end"]


def test_a_metadata_block_inside_a_transaction_applies_to_its_writes_only(own_schema: dict[str, Any]) -> None:
    outer = {"user": "alice"}
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            with store.transaction(metadata=outer) as tx:
                tx["orders"].insert("o-1", {})
                with metadata(step=2):
                    tx["orders"].insert("o-2", {})
                    tx["orders"].insert_many([("o-3", {})])
                tx["orders"].insert("o-4", {})
            inner = {"user": "alice", "step": 2}
            assert changes() == [outer, "insert", inner, "insert", inner, "insert", outer, "insert", "end"]


def test_metadata_ends_with_its_block_inside_a_transaction_without_metadata(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store.create_collection("orders")
        with recorded(own_schema["conninfo"]) as changes:
            with store.transaction() as tx:
                with metadata(step=1):
                    tx["orders"].insert("o-1", {})
                tx["orders"].insert("o-2", {})
            assert changes() == [{"step": 1}, "insert", {}, "insert", "end"]


def test_metadata_that_json_cannot_represent_is_refused_before_anything_is_sent(
    own_schema: dict[str, Any],
) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidDocument, match="user"):
            store.transaction(metadata={"user": object()})
        with pytest.raises(InvalidDocument, match="user"), metadata(user={1, 2}):
            pass
        with pytest.raises(InvalidDocument, match="mapping"):
            store.transaction(metadata=["alice"])  # type: ignore[arg-type]
