"""What a subscriber sees of a live query: its own list, with indexes that count only what it sees."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from pgdoc import Document, LiveChange, LiveChangeKind
from pgdoc.model.tokens import token_at
from pgdoc.web.entries import ChangesEntry, DocumentsEntry
from pgdoc.web.messages import socket_text
from pgdoc.web.views import Viewer

PLACE = token_at((1, 1, 0, 0), (7, 1, 1))


def document(number: int, value: int) -> Document:
    return Document(f"o-{number}", {"value": value}, 1, datetime.now(UTC), datetime.now(UTC))


def is_seen(each: Document) -> bool:
    return bool(each["value"] % 2)


def shape(each: Document) -> Any:
    return {"id": each.id, "data": each.data}


@given(st.data())
def test_applying_what_a_subscriber_gets_gives_the_documents_that_it_may_see(data: st.DataObject) -> None:
    whole = [document(number, data.draw(st.integers(0, 3))) for number in range(data.draw(st.integers(0, 4)))]
    viewer = Viewer(is_seen)
    numbers = iter(range(10, 100))

    async def run() -> None:
        text = await viewer.text(DocumentsEntry(list(whole), PLACE), socket_text)
        assert text is not None
        seen = orjson.loads(text)["data"]
        for _ in range(data.draw(st.integers(1, 8))):
            changes = [draw_change(data, whole, next(numbers)) for _ in range(data.draw(st.integers(1, 3)))]
            text = await viewer.text(ChangesEntry(changes, PLACE, PLACE), socket_text)
            for change in [] if text is None else orjson.loads(text)["data"]:
                apply(seen, change)
            assert [{"id": each["id"], "data": each["data"]} for each in seen] == [
                shape(each) for each in whole if is_seen(each)
            ]

    asyncio.run(run())


def draw_change(data: st.DataObject, whole: list[Document], number: int) -> LiveChange[Any]:
    kind = data.draw(st.sampled_from(["added", "modified", "removed"] if whole else ["added"]))
    value = data.draw(st.integers(0, 3))
    if kind == "added":
        index = data.draw(st.integers(0, len(whole)))
        whole.insert(index, document(number, value))
        return LiveChange(LiveChangeKind(kind), whole[index], None, index, None)
    old = data.draw(st.integers(0, len(whole) - 1))
    former = whole.pop(old)
    if kind == "removed":
        return LiveChange(LiveChangeKind(kind), former, old, None, None)
    new = data.draw(st.integers(0, len(whole)))
    whole.insert(new, replace(former, data={"value": value}))
    return LiveChange(LiveChangeKind(kind), whole[new], old, new, None)


def apply(seen: list[Any], change: dict[str, Any]) -> None:
    assert change["kind"] in {"added", "modified", "removed"}
    assert (change["old_index"] is None) == (change["kind"] == "added")
    assert (change["new_index"] is None) == (change["kind"] == "removed")
    if change["old_index"] is not None:
        assert seen.pop(change["old_index"])["id"] == change["document"]["id"]
    if change["new_index"] is not None:
        seen.insert(change["new_index"], change["document"])


def test_a_document_that_gets_hidden_is_removed_without_its_data() -> None:
    async def run() -> Any:
        viewer = Viewer(is_seen)
        await viewer.text(DocumentsEntry([document(1, 1)], PLACE), socket_text)
        change = LiveChange(LiveChangeKind.MODIFIED, document(1, 2), 0, 0, None)
        return await viewer.text(ChangesEntry([change], PLACE, PLACE), socket_text)

    assert orjson.loads(asyncio.run(run()))["data"] == [
        {"kind": "removed", "document": {"id": "o-1"}, "old_index": 0, "new_index": None}
    ]


def test_a_view_that_changes_a_document_changes_nobody_elses() -> None:
    def redact(each: Document) -> Document:
        each.data["value"] = "-"
        return each

    one = document(1, 1)

    async def run() -> Any:
        return await Viewer(redact).text(DocumentsEntry([one], PLACE), socket_text)

    assert orjson.loads(asyncio.run(run()))["data"][0]["data"] == {"value": "-"}
    assert one.data == {"value": 1}


def test_others_have_their_turn_while_a_long_list_is_viewed() -> None:
    whole = DocumentsEntry([document(number, 1) for number in range(1000)], PLACE)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> None:
        other = asyncio.create_task(others())
        assert await Viewer(is_seen).text(whole, socket_text) is not None
        other.cancel()

    asyncio.run(run())
    assert turns >= 10
