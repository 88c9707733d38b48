"""User input is either stored literally, whatever it would mean in SQL, or refused before anything is sent."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Collection, Store
from pgdoc.errors import InvalidDocument, InvalidFilter, InvalidInput, InvalidName, InvalidUpdate
from tests.fuzz.pools import Custom, endless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Call: TypeAlias = tuple[type[InvalidInput], str, tuple[Any, ...], dict[str, Any]]

    from tests.fixtures.fix_server import Server

HOSTILE = [
    "'",
    '"',
    "\\",
    "''",
    '\\"',
    "';--",
    "'); DROP TABLE orders; --",
    '"; DELETE FROM orders; --',
    "%",
    "%s",
    "%(id)s",
    "%%s",
    "{}",
    "{0}",
    "{table}",
    "$1",
    "$$",
    "$tag$x$tag$",
    ":id",
    "?",
    "@",
    "/* */",
    "\x01",
    "\x1f",
    "\x7f",
    "\n",
    "\t",
    " ",
    "\u2028",
    "é",
    "ẞ",
    "\U0001f600",
    "\ufffe",
    "\\u0000",
    "\\x00",
    "null",
    "0",
    "-1",
    "NaN",
    "::int",
    "@@ '$'",
    "&&",
    "||",
    "[*]",
    "$x",
    "*",
    "**",
    "lax $",
    "E'\\''",
    "_",
    "__",
]


@pytest.fixture
def orders(server: Server, shared_database: str) -> Iterator[Collection]:
    with Store(server.conninfo_for(shared_database), schema="hostile") as store:
        yield store.create_collection("orders")
        store.drop_collection("orders")


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_taken_as_they_are(orders: Collection, text: str) -> None:
    """Use a text as id, value, key, path and pattern, in filters, updates, sorts and fields."""
    orders.delete_many({})
    data: dict[str, Any] = {"v": text, "o": {text: [text, {text: 1}]}, "n": {text: 2}}
    orders.insert_many([(text, data), ("other", {"v": f"{text}!", "n": {"other": 1}})])
    for wanted in every_filter(text):
        assert [document.id for document in orders.find(wanted)] == [text], wanted
        assert orders.count({"$nor": [wanted]}) == 1, wanted
    found = orders.find_one({"_id": text}, sort=[f"n.{text}", "-v"], fields=[f"o.{text}"])
    assert found is not None
    assert found.data == {"o": {text: data["o"][text]}}
    assert [document.id for document in orders.find(sort=f"-n.{text}")] == [text, "other"]
    assert orders.distinct(f"o.{text}", {"v": text}) == [text, {text: 1}]
    update_with(orders, text)
    assert orders.delete(text)
    assert orders.count() == 1


def every_filter(text: str) -> Iterator[dict[str, Any]]:
    yield {"_id": text}
    yield {"_id": {"$in": [text, f"{text}?"]}}
    yield {"_id": {"$gte": text, "$lte": text}}
    yield {"v": text}
    yield {"v": {"$in": [text, *map(str, range(100, 140))]}}
    yield {"v": {"$regex": f"^{escaped(text)}$"}}
    yield {"_id": {"$not": {"$ne": text}}}
    yield {f"o.{text}": text}
    yield {f"o.{text}.0": text}
    yield {f"o.{text}.{text}": 1}
    yield {f"n.{text}": {"$gt": 1}}
    yield {f"o.{text}": {"$all": [text], "$size": 2}}
    if not text.startswith("$"):  # `$...` would be an operator here
        yield {"n": {text: 2}}
        yield {f"o.{text}": {"$elemMatch": {text: {"$type": "int"}}}}


def escaped(text: str) -> str:
    return "".join(
        rf"\{char}" if char.isascii() and not char.isalnum() and char.isprintable() and char != "_" else char
        for char in text
    )


def update_with(orders: Collection, text: str) -> None:
    positional = text == "$" or text.startswith("$[")
    key = "k" if positional else text
    changes = {
        "$set": {f"a.{key}": text, "b": {text: text}},
        "$inc": {f"n.{key}": 1},
        "$push": {f"l.{key}": {"$each": [text, "x"], "$sort": -1}},
        "$pull": {f"o.{key}": {"$type": "object"} if text.startswith("$") else {key: 1}},
        "$rename": {"v": f"w.{key}"},
    }
    changed = orders.update(text, changes)
    assert changed is not None
    assert changed.data["a"] == {key: text}
    assert changed.data["b"] == {text: text}
    assert changed.data["n"][key] == 3
    assert sorted(changed.data["l"][key]) == sorted([text, "x"])
    assert changed.data["o"] == {text: [text]}
    assert changed.data["w"] == {key: text}


@pytest.mark.parametrize("text", ["'", '"', "\\", "%s", "{}", "$$", "';--", "é", "$x", "\x01", "{table}"])
def test_an_index_takes_them_too(orders: Collection, text: str) -> None:
    orders.delete_many({})
    orders.insert_many([("a", {"n": {text: text}}), ("b", {"n": {text: [text]}}), ("c", {})])
    name = orders.create_index(f"n.{text}", where={f"n.{text}": {"$gte": text}})
    assert [index.paths for index in orders.indexes()] == [(f"n.{text}",)]
    assert [document.id for document in orders.find({f"n.{text}": text}, sort="_id")] == ["a", "b"]
    assert orders.drop_index(name)
    assert orders.indexes() == []


BAD_KEYS: list[Any] = ["a\0b", "\ud800", 1, None, b"a", ("a",), True]
BAD_VALUES: list[Any] = [
    math.nan,
    -math.inf,
    "\0",
    "\udc00",
    b"x",
    {1},
    Custom(),
    Custom,
    endless(),
    10**4300,
    -(10**5000),
    {"\0": 1},
    {1: 1},
    {"x": [object()]},
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("1e99999"),
    1j,
    ...,
]
BAD_FILTERS: list[Any] = [
    [],
    "a",
    5,
    b"a",
    Custom(),
    10**5000,
    {"$where": "1"},
    {"$and": []},
    {"a": {"$gt": 1, "b": 2}},
    {"a": {"$regex": "("}},
]
BAD_FILTERS += [
    {"": 1},
    {"a..b": 1},
    {".": 1},
    {"a": {"$size": 10**400}},
    {"a": {"$mod": [10**400, 0]}},
    {"a": {"$in": "x"}},
]
BAD_FILTERS += [
    {"a": {"$regex": "\ud800"}},
    {"a": {"$regex": "\0"}},
    {"a": {"$options": "i"}},
    {"a": {"$type": "';--"}},
]
BAD_FILTERS += [
    {"a": {"$elemMatch": Custom()}},
    {"a": {"$size": Decimal("sNaN")}},
    {"a": {"$not": {"$regex": r"(a)\1"}}},
]
BAD_UPDATES: list[Any] = [
    None,
    {},
    [],
    "a",
    5,
    Custom(),
    {"a": 1},
    {"$set": 1},
    {"$where": {}},
    {"$bit": {"a": {"and": Decimal("NaN")}}},
    {"$bit": {"a": {"or": 10**5000}}},
    {"$set": {"a.$[x]": 1}},
    {"$set": {"a.$[\0]": 1}},
    {"$set": {"a.$": 1}},
    {"$set": {"_id": 1}},
    {"$set": {"": 1}},
    {1: {}},
]
BAD_UPDATES += [
    {"$inc": {"a": "1"}},
    {"$pop": {"a": Decimal("sNaN")}},
    {"$push": {"a": {"$each": [], "$slice": Decimal("1e5000")}}},
]
BAD_UPDATES += [
    {"$set": {"a": 1, "a.b": 2}},
    {"$pull": {"a": {"$regex": "("}}},
    {"$rename": {"a": "b\0"}},
    {"$set": {"a": 1}, "$x": {}},
]
BAD_ARRAY_FILTERS: list[Any] = [
    5,
    "x",
    {"x": 1},
    [None],
    [[]],
    [{}],
    [{"a\0": 1}],
    [{"x": math.nan}],
    [{"x": {"$regex": "("}}],
    [{"x": 1, "y": 1}],
    [{"x": 1}, {"x": 2}],
    [{"x": 1}, {"y": 2}],
    [{5: 1}],
    [{"$where": 1}],
]
BAD_PATHS: list[Any] = ["", "-", ".", "a.", "a..b", "a\0", "\ud800", 5, None, b"a", ".".join("a" * 300)]
BAD_NAMES: list[Any] = [
    "",
    "a b",
    "a.b",
    "a'b",
    'a"b',
    "a;b",
    "a%s",
    "a\0",
    "\ud800",
    "1a",
    "-a",
    "a" * 64,
    "é" * 40,
    "$",
    5,
    None,
    b"a",
    "a\n",
]
BAD_COUNTS: list[Any] = [-1, 1.5, "1", True, 2**63, 10**5000, math.nan, b"1"]


def call(error: type[InvalidInput], name: str, /, *args: Any, **kwargs: Any) -> Call:
    return error, name, args, kwargs


def with_bad_ids() -> Iterator[Call]:
    for key in ["", "a\0", "\ud800", "a" * 1025, "é" * 513, 5, None, b"a", 10**5000, Custom()]:
        yield call(InvalidDocument, "insert", key, {})
        yield call(InvalidDocument, "get", key)
        yield call(InvalidDocument, "update", key, {"$set": {"a": 1}}, upsert=True)
        yield call(InvalidDocument, "replace", key, {})
        if isinstance(key, str) and "\0" not in key and key.isprintable():
            yield call(InvalidDocument, "replace_one", {"_id": key}, {}, upsert=True)
            yield call(InvalidDocument, "update_one", {"_id": key}, {"$set": {"a": 1}}, upsert=True)
        yield call(InvalidDocument, "delete", key)


def with_bad_values() -> Iterator[Call]:
    for value in BAD_VALUES:
        yield call(InvalidDocument, "insert", "x", {"a": {"b": value}})
        yield call(InvalidDocument, "replace_one", {}, {"a": {"b": value}})
        yield call(InvalidDocument, "replace", "x", {"a": {"b": value}})
        yield call(InvalidFilter, "find_one", {"a": {"$eq": [value]}})
        yield call(InvalidFilter, "find_one", {"a": {"$nin": [1, value]}})
        yield call(InvalidUpdate, "update", "x", {"$set": {"a.b": value}})
        yield call(InvalidUpdate, "update", "x", {"$push": {"a": {"$each": [value]}}})
        yield call(InvalidUpdate, "update_many", {}, {"$pull": {"a": {"b": {"$gt": value}}}})
    for key in BAD_KEYS:
        yield call(InvalidDocument, "insert", "x", {"a": {key: 1}})
        yield call(InvalidFilter, "count", {key: 1})
        yield call(InvalidUpdate, "update", "x", {"$inc": {key: 1}})
    for data in [None, [], "a", 5, b"{}", {"_id": 1}, [("a", 1)]]:
        yield call(InvalidDocument, "insert", "x", data)
        yield call(InvalidDocument, "replace", "x", data)
    yield call(InvalidDocument, "insert_many", 5)
    yield call(InvalidDocument, "transaction", {"user": {1}})


def with_bad_filters_and_updates() -> Iterator[Call]:
    for wanted in BAD_FILTERS:
        yield call(InvalidFilter, "find", wanted)
        yield call(InvalidFilter, "delete_many", wanted)
        yield call(InvalidFilter, "update_one", wanted, {"$set": {"a": 1}})
        yield call(InvalidFilter, "update_one", wanted, {"$set": {"a": 1}}, upsert=True)
        yield call(InvalidFilter, "replace_one", wanted, {}, upsert=True)
        yield call(InvalidFilter, "delete_one", wanted)
        yield call(InvalidFilter, "explain", wanted)
        yield call(InvalidFilter, "distinct", "a", wanted)
    for wanted in BAD_UPDATES:
        yield call(InvalidUpdate, "update", "x", wanted)
        yield call(InvalidUpdate, "update_one", {}, wanted)
        yield call(InvalidUpdate, "update_many", {}, wanted)
    for wanted in BAD_ARRAY_FILTERS:
        for name, where in (("update", "x"), ("update_one", {}), ("update_many", {})):
            yield call(InvalidUpdate, name, where, {"$set": {"a.$[x]": 1}}, array_filters=wanted)
    wrong: list[Any] = [None, "", "AFTER", b"after", True, 10**5000, []]
    for value in wrong:
        yield call(InvalidInput, "update_one", {}, {"$set": {"a": 1}}, return_document=value)
        yield call(InvalidInput, "replace_one", {}, {}, return_document=value)
    yield call(InvalidFilter, "create_index", "a", where={"b": {"$regex": "'"}})


def with_bad_paths() -> Iterator[Call]:
    for path in BAD_PATHS:
        yield call(InvalidInput, "find_one", sort=[path])
        yield call(InvalidInput, "find_one", fields=[path])
        yield call(InvalidInput, "distinct", path)
        yield call(InvalidInput, "create_index", path)
    yield call(InvalidInput, "find_one", sort={"a": 1})
    yield call(InvalidInput, "find_one", fields={"a": 1, "b": 0})
    yield call(InvalidInput, "find_one", fields=["a", "-b"])
    yield call(InvalidInput, "find_one", fields=["a", "a.b"])
    yield call(InvalidInput, "create_index")
    yield call(InvalidInput, "create_index", "a", "a")


def with_bad_names_and_counts() -> Iterator[Call]:
    for name in BAD_NAMES:
        yield call(InvalidName, "collection", name)
        yield call(InvalidName, "create_collection", name)
        yield call(InvalidName, "drop_collection", name)
        yield call(InvalidName, "rename_collection", "orders", name)
        yield call(InvalidName, "rename_collection", name, "new")
        yield call(InvalidName, "drop_index", name)
        yield call(InvalidName, "create_index", "a", name=5 if name is None else name)
    for count in BAD_COUNTS:
        yield call(InvalidInput, "find", limit=count)
        yield call(InvalidInput, "find", skip=count)
        yield call(InvalidInput, "update", "x", {"$set": {"a": 1}}, if_version=count)
        yield call(InvalidInput, "replace", "x", {}, if_version=count)
        yield call(InvalidInput, "delete", "x", if_version=count)


@pytest.mark.parametrize(
    "calls", [with_bad_ids, with_bad_values, with_bad_filters_and_updates, with_bad_paths, with_bad_names_and_counts]
)
def test_what_can_not_be_used_is_refused_before_anything_is_sent(calls: Callable[[], Iterator[Call]]) -> None:
    """There is no server, so a call that sent something would raise another error."""
    with Store("host=/nowhere connect_timeout=1") as store:
        for number, (error, name, args, kwargs) in enumerate(calls()):
            with pytest.raises(error) as caught:
                getattr(store if hasattr(store, name) else store["orders"], name)(*args, **kwargs)
            assert_helpful(number, caught.value)


def assert_helpful(number: int, exc: InvalidInput) -> None:
    """Check that a message is one line of a reasonable length, and that `path` and `operator` are texts."""
    text = str(exc)
    assert 20 < len(text) < 600, (number, text)
    assert "\n" not in text, (number, text)
    assert exc.path is None or isinstance(exc.path, str), number
    operator = getattr(exc, "operator", None)
    assert operator is None or isinstance(operator, str), number


@pytest.mark.parametrize(
    "pairs", [["ab", "cde"], [("a",)], [("a", {}, 1)], [5], {"a": {}}, [("a", {}), ("b", {"x": {1}})], [("a", 5)]]
)
def test_insert_many_with_one_invalid_document_stores_nothing(orders: Collection, pairs: Any) -> None:
    orders.delete_many({})
    with pytest.raises(InvalidDocument):
        orders.insert_many(pairs)
    assert orders.count() == 0


def test_an_error_raised_by_the_iterable_is_passed_on(orders: Collection) -> None:
    def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
        yield "a", {}
        raise TypeError("the file ends here")

    orders.delete_many({})
    with pytest.raises(TypeError, match=re.escape("the file ends here")):
        orders.insert_many(pairs())
    assert orders.count() == 0
