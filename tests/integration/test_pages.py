"""Pages of `find(after=...)`: together they are the whole result, in order, whatever the values and the indexes."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store
from pgdoc.errors import InvalidInput, PgdocError
from tests.fuzz.dice import Dice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import Collection, Document

DOCUMENTS = 90
SORTS = [
    "_id",
    "-_id",
    "a",
    "-a",
    ["a", "b"],
    ["a", "-b"],
    ["-a", "-b", "_id"],
    ["a", "-_id", "b"],
    ["-a.b", "a"],
    "a.0",
    "none",
]
LONG = "x" * 79
# Ties, mixed types, and values with equal keys: all longer than an index holds.
VALUES = [None, True, False, 0, 1, -1, 1.5, 10**80, 10**80 + 1, "", "a", "x" * 78, LONG, LONG + "a", LONG + "b"]
NESTED: list[Any] = [[], {}, ["a"], [1, 2], {"a": 1}, [LONG], [LONG, 1], {"b": LONG * 2}, {"b": 5}]


@pytest.fixture
def pair(own_schema: dict[str, Any]) -> Iterator[tuple[Collection, Collection]]:
    """Two collections with the same documents; PostgreSQL uses the indexes of the second whenever it can."""
    own_schema["conninfo"] += " options='-c enable_seqscan=off -c enable_sort=off -c jit=off'"
    dice = Dice(random.Random(5))
    with Store(**own_schema) as store:
        for number in range(DOCUMENTS):
            data = {name: dice.pick(VALUES + NESTED) for name in ("a", "b") if not dice.one_in(6)}
            for name in "plain", "indexed":
                with contextlib.suppress(PgdocError):
                    store[name].insert(f"{number * 7 % DOCUMENTS:03}", data)
        for paths in ("a",), ("a", "b"), ("-a", "b"), ("a.b",), ("b", "_id"):
            store["indexed"].create_index(*paths)
        yield store["plain"], store["indexed"]


def paths_of(sort: Any) -> list[str]:
    return [path.removeprefix("-") for path in ([sort] if isinstance(sort, str) else sort)]


def position_of(document: Document, sort: Any) -> list[Any]:
    values: list[Any] = []
    for path in paths_of(sort):
        value: Any = {**document.data, "_id": document.id}
        for part in path.split("."):
            if isinstance(value, list) and path == "a.0":
                value = value[int(part)] if int(part) < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        values.append(value)
    return values if "_id" in paths_of(sort) else [*values, document.id]


def pages(docs: Collection, wanted: Any, sort: Any, size: int, *, by_list: bool) -> Iterator[str]:
    after: Any = None
    while page := list(docs.find(wanted, sort=sort, limit=size, after=after)):
        yield from (document.id for document in page)
        after = position_of(page[-1], sort) if by_list else page[-1]


def test_pages_are_the_whole_result_in_order(pair: tuple[Collection, Collection]) -> None:
    plain, indexed = pair
    filters: list[Any] = [{}, {"a": {"$gte": 0}}, {"b": {"$ne": None}}, {"$or": [{"a": 1}, {"b": 1}]}]
    for (number, wanted), sort in itertools.product(enumerate(filters), SORTS):
        expected = [document.id for document in plain.find(wanted, sort=sort)]
        for docs in plain, indexed:
            assert list(pages(docs, wanted, sort, 11, by_list=bool(number % 2))) == expected, (wanted, sort)


def test_pages_continue_behind_every_document(pair: tuple[Collection, Collection]) -> None:
    _, indexed = pair
    for sort in ["a", "-a"], ["-b", "a"]:
        every = list(indexed.find(sort=sort))
        for number, document in enumerate(every):
            following = [found.id for found in indexed.find(sort=sort, after=document, limit=2)]
            assert following == [found.id for found in every[number + 1 : number + 3]]
        assert list(indexed.find(sort=sort, after=every[-1])) == []
        assert len(list(indexed.find(sort=sort, after=every[0], skip=3))) == len(every) - 4


def test_pages_miss_no_document_that_stays_while_others_come_and_go(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs, seen = store["docs"], []
        docs.insert_many((f"{number:03}", {"n": number % 10}) for number in range(200))
        after: Any = None
        while page := list(docs.find(sort="n", limit=20, after=after)):
            seen += [document.id for document in page]
            after = [page[-1].data["n"], page[-1].id]
            docs.delete(page[-1].id)  # the position outlives its document
            docs.insert(f"new-{len(seen)}", {"n": -1})
        assert sorted(seen) == [f"{number:03}" for number in range(200)]


def test_a_page_reads_no_more_than_its_documents_from_an_index(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = store["docs"]
        docs.insert_many((f"{number:05}", {"n": number // 10}) for number in range(5_000))
        docs.create_index("n", "_id")
        with store.transaction() as tx:
            tx.connection.execute("ANALYZE docs" if own_schema.get("schema") == "docs" else "ANALYZE")
        plan = docs.explain(sort=["n", "_id"], limit=10, after=[250, "02505"])
        assert "Index Cond" in plan
        assert "ROW(" in plan
        assert [found.id for found in docs.find(sort=["n", "_id"], limit=3, after=[250, "02508"])] == [
            "02509",
            "02510",
            "02511",
        ]


def test_a_document_continues_the_pages_of_the_fields_that_it_was_read_with(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        docs = store["docs"]
        docs.insert_many([(str(number), {"n": number, "m": -number}) for number in range(5)])
        for found in docs.find_one({"n": 2}, fields="m"), *docs.find({"n": 2}, fields="m"):
            with pytest.raises(InvalidInput, match=r"document '2'.* leave out or change 'n'"):
                docs.find(sort="n", after=found)
            assert [each.id for each in docs.find(sort="m", fields="n", after=found)] == ["1", "0"]
            assert [each.id for each in docs.find(sort="n", fields="m", after=docs.get("2"))] == ["3", "4"]


@pytest.mark.parametrize(
    ("sort", "after"), [(None, ["a"]), ("n", "a"), ("n", ["a"]), ("n", [1, 2, 3]), ("n", [1, ""]), ("n", [{1}, "a"])]
)
def test_an_invalid_position_sends_nothing(own_schema: dict[str, Any], sort: Any, after: Any) -> None:
    with Store(**own_schema) as store:
        for call in store["docs"].find, store["docs"].explain:
            with pytest.raises(InvalidInput, match="after"):
                call(sort=sort, after=after)
