from __future__ import annotations

from typing import Any

import pytest

import pgdoc
from pgdoc.errors import InvalidName
from pgdoc.model.names import check_index, check_name, quoted


@pytest.mark.parametrize("name", ["a", "_", "orders-2026", "Größe", "x" * 63, "é" * 31])
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name, "collection") == name


@pytest.mark.parametrize(
    "name", ["", "2a", "-", "a b", "a.b", 'a"', "a%s", "a\n", "a\0", "x" * 64, "é" * 32, None, 5, b"a"]
)
def test_an_invalid_name_is_refused_with_its_kind(name: Any) -> None:
    with pytest.raises(InvalidName, match="schema"):
        check_name(name, "schema")


@pytest.mark.parametrize("schema", ["pgdoc", "pg_catalog", "information_schema"])
def test_a_schema_of_pgdoc_or_the_server_is_none_for_collections(schema: str) -> None:
    with pytest.raises(InvalidName, match=f'schema "{schema}" has no collections'):
        pgdoc.Store(schema=schema)
    assert check_name(schema, "collection") == schema


def test_a_table_is_quoted() -> None:
    assert quoted("Docs", "select") == '"Docs"."select"'


@pytest.mark.parametrize(
    ("index", "advice"),
    [
        (("w", dict), r"call store\.collection\('w', Model\)$"),
        ((dict, "w"), r"call store\.collection\(name, Model\)$"),
        ((), r"call store\.collection\(name, Model\)$"),
        (dict, r"store\[name\] takes the name of a collection, got <class 'dict'>: .*\.collection\(name, Model\)$"),
        (None, r"got None: "),
        (5, r"got 5: "),
    ],
)
def test_an_index_that_is_no_text_leads_to_the_call_that_takes_a_model(index: Any, advice: str) -> None:
    with pytest.raises(InvalidName, match=advice):
        check_index(index, "store")


def test_a_class_in_place_of_a_name_leads_to_where_models_go() -> None:
    with pytest.raises(InvalidName, match=r"to store\.collection\(name, Model\), and to worker\.on as model=$"):
        check_name(dict, "collection")
    with pytest.raises(InvalidName, match="is not a valid schema name: use a letter"):
        check_name(dict, "schema")


async def test_stores_transactions_and_bulks_say_so() -> None:
    async with pgdoc.AsyncStore("host=nowhere") as async_store:
        with pgdoc.Store("host=nowhere") as store:
            owners: list[Any] = [store, store.transaction(), store.bulk()]
            owners += [async_store, async_store.transaction(), async_store.bulk()]
            for owner, name in zip(owners, ["store", "tx", "bulk"] * 2, strict=True):
                with pytest.raises(InvalidName, match=rf"call {name}\.collection\('w', Model\)"):
                    owner["w", dict]
