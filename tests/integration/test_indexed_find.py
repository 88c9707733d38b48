"""Every call on a collection returns the same with indexes as without."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store
from pgdoc.errors import PgdocError
from tests.fuzz.dice import Dice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import Collection

DOCUMENTS = 300
PATHS = (("a",), ("-b", "a"), ("a.b",), ("b", "a.a"), ("a.0",), ("_id", "b"))
LIMITED = {"b": {"$gte": 0}}
VALUES = [None, True, False, 0, 1, -1, 1.5, 10**80, "", "a", "b", "x" * 79, "x" * 90, [], {}, ["a"], [1, 2], {"a": 1}]


@pytest.fixture
def pair(own_schema: dict[str, Any]) -> Iterator[tuple[Collection, Collection]]:
    """Two collections with the same documents; PostgreSQL uses the indexes of the second whenever it can."""
    own_schema["conninfo"] += " options='-c enable_seqscan=off -c jit=off'"
    dice = Dice(random.Random(7))
    with Store(**own_schema) as store:
        for number in range(DOCUMENTS):
            data = {"a": dice.pick(VALUES), "b": dice.pick(VALUES)} if number % 2 else dice.document()
            for name in "plain", "indexed":
                with contextlib.suppress(PgdocError):
                    store[name].insert(f"{number:03}", data)
        for paths in PATHS:
            store["indexed"].create_index(*paths)
        store["indexed"].create_index("a", name="limited", where=LIMITED)
        yield store["plain"], store["indexed"]


def queries(dice: Dice) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for number in range(600):
        arguments: dict[str, Any] = {}
        if dice.one_in(2):
            arguments["sort"] = dice.pick(["a", "-a", ["b", "-a"], ["-b", "a"], "a.b", "_id", "a.0"])
            if dice.one_in(2):
                arguments["limit"], arguments["skip"] = dice.pick([1, 7, 150]), dice.pick([0, 0, 3])
        if number % 4 == 0:
            path = dice.pick(["a", "a.b", "-a", "-a.b"])
            arguments = {"sort": path, "limit": dice.pick([1, 7, 150]), "skip": dice.pick([0, 0, 3])}
            yield {path.removeprefix("-"): {dice.pick(["$gt", "$gte", "$lt", "$lte"]): dice.pick(VALUES)}}, arguments
            continue
        yield simple(dice) if number % 3 else dice.filter(dice.document()), arguments


def simple(dice: Dice) -> dict[str, Any]:
    wanted = {}
    for path in "a", dice.pick(["b", "a.b", "a.0", "a.a"]):
        operators = dice.pick([["$eq"], ["$in"], ["$gt"], ["$lte"], ["$gte", "$lt"], ["$ne"]])
        values = {operator: dice.pick(VALUES) for operator in operators}
        wanted[path] = {name: [value, "a"] if name == "$in" else value for name, value in values.items()}
    if dice.one_in(4):
        return {"$or": [{path: value} for path, value in wanted.items()]}
    return {**wanted, **LIMITED} if dice.one_in(4) else wanted


def test_indexes_change_no_result(pair: tuple[Collection, Collection]) -> None:
    plain, indexed = pair
    used = compared = 0
    for wanted, arguments in queries(Dice(random.Random(11))):
        try:
            expected = [document.id for document in plain.find(wanted, **arguments)]
        except PgdocError:
            continue
        found = [document.id for document in indexed.find(wanted, **arguments)]
        assert (found if arguments else sorted(found)) == (expected if arguments else sorted(expected)), wanted
        assert indexed.count(wanted) == plain.count(wanted), wanted
        used += "sort_key" in indexed.explain(wanted, **arguments)
        compared += 1
    assert compared > 400
    assert used > 300


def test_indexes_do_not_affect_which_documents_are_changed(pair: tuple[Collection, Collection]) -> None:
    plain, indexed = pair
    changed = set()
    for number, (wanted, arguments) in enumerate(queries(Dice(random.Random(17)))):
        sort = arguments.get("sort", "_id")
        try:
            expected = change(plain, number, wanted, sort)
        except PgdocError:
            continue
        assert change(indexed, number, wanted, sort) == expected, wanted
        changed.add(expected)
    assert len(changed) > 30


def change(docs: Collection, number: int, wanted: dict[str, Any], sort: Any) -> Any:
    """Return the number of changed documents, or the id of the changed document."""
    changes = {"$set": {"c": number}}
    if number % 10 == 0:
        return docs.delete_many({"$and": [{"c": {"$gt": 0}}, wanted]})
    if number % 10 == 1:
        return docs.update_many(wanted, changes)
    if number % 10 == 2:
        found = docs.delete_one(wanted, sort=sort)
    else:
        found = docs.update_one(wanted, changes, sort=sort, skip_locked=number % 2 == 0)
    return found and found.id
