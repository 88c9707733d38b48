from __future__ import annotations

import asyncio
import contextvars
import json
from typing import Any

import pytest

from pgdoc.errors import InvalidDocument
from pgdoc.model.metadata import Metadata, checked, current_metadata, metadata


def test_blocks_nest_and_the_inner_one_wins() -> None:
    assert not current_metadata()
    with metadata(user="alice", app="shop"):
        with metadata(user="bob", step=1):
            assert current_metadata().values == {"user": "bob", "app": "shop", "step": 1}
        assert current_metadata().values == {"user": "alice", "app": "shop"}
    assert not current_metadata()


def test_a_block_ends_with_an_exception() -> None:
    with pytest.raises(LookupError), metadata(user="alice"):
        raise LookupError
    assert not current_metadata()


def test_a_block_applies_only_to_its_own_context() -> None:
    outside = contextvars.copy_context()
    with metadata(user="alice"):
        assert not outside.run(current_metadata)
        assert contextvars.copy_context().run(current_metadata).values == {"user": "alice"}


def test_each_task_has_its_own_blocks() -> None:
    async def write(user: str) -> dict[str, Any]:
        with metadata(user=user):
            await asyncio.sleep(0)
            return current_metadata().values

    async def both() -> list[dict[str, Any]]:
        return list(await asyncio.gather(write("alice"), write("bob")))

    assert asyncio.run(both()) == [{"user": "alice"}, {"user": "bob"}]


def test_the_message_is_an_object_with_one_key() -> None:
    assert json.loads(checked({"user": "Ål", "n": 10**30}).message) == {"metadata": {"user": "Ål", "n": 10**30}}


def test_modifying_the_passed_mapping_changes_nothing() -> None:
    passed = {"tags": ["a"]}
    made = checked(passed)
    passed["tags"].append("b")
    assert json.loads(made.message) == {"metadata": {"tags": ["a"]}}


@pytest.mark.parametrize("values", [None, {}])
def test_no_values_make_no_metadata(values: dict[str, Any] | None) -> None:
    assert not checked(values)


@pytest.mark.parametrize("values", [["user"], "alice", 5, {"a": {1, 2}}, {"a": float("nan")}, {1: 2}, {"a": "\0"}])
def test_metadata_that_json_can_not_represent_is_refused(values: Any) -> None:
    with pytest.raises(InvalidDocument) as caught:
        checked(values)
    assert "metadata.metadata" not in str(caught.value)


def test_since_returns_what_an_inner_block_added() -> None:
    outer = Metadata({"user": "alice", "app": "shop"})
    inner = Metadata({"user": "bob", "step": 1}).over(outer)
    assert inner.since(outer).values == {"user": "bob", "step": 1}
    assert not outer.since(outer)
    assert not Metadata({}).since(outer)
