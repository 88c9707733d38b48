"""PostgreSQL's plans use the indexes, even if one document in a hundred has an array at the path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store
from pgdoc.crud.statements import CLAIMING
from pgdoc.query import parse_filter, parse_sort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import Collection
    from tests.fixtures.fix_server import Server

DOCUMENTS = 200_000


# One document in a hundred has an array where the others have a value, or an array of objects on the path.
FILL = f"""
INSERT INTO plans.orders (id, data)
SELECT lpad(n::text, 6, '0'), jsonb_build_object(
  'status', CASE WHEN n % 100 = 0 THEN '["paid", "new"]'
    ELSE to_jsonb(CASE n % 1000 WHEN 1 THEN 'new' ELSE 'old' END) END,
  'total', CASE WHEN n % 100 = 0 THEN jsonb_build_array(n / 4.0, n / -4.0)
    WHEN n % 1000 = 5 THEN to_jsonb(n::text) ELSE to_jsonb(n / 4.0) END,
  'rank', n, 'address', CASE WHEN n % 100 = 0 THEN jsonb_build_array(city) ELSE city END)
FROM generate_series(0, {DOCUMENTS - 1}) AS n CROSS JOIN LATERAL jsonb_build_object('city', 'city ' || n % 2000) AS city
"""


@pytest.fixture(scope="module")
def filled(server: Server, shared_database: str) -> Iterator[dict[str, Any]]:
    arguments: dict[str, Any] = {"conninfo": server.conninfo_for(shared_database), "schema": "plans"}
    with Store(**arguments) as store:
        store.create_collection("orders")
        with store.transaction() as tx:
            tx.connection.execute(FILL.encode())
        for paths in ("status",), ("total",), ("address.city", "-rank"):
            store["orders"].create_index(*paths)
    yield arguments
    with Store(**arguments) as store:
        store.drop_collection("orders")


@pytest.fixture
def orders(filled: dict[str, Any]) -> Iterator[Collection]:
    with Store(**filled) as store:
        yield store["orders"]


def parts(plan: str) -> set[str]:
    """Return the indexes of a plan, without the digests in their names."""
    return {name.rpartition(".")[0] for name in re.findall(r'"(orders\..*?)"', plan)}


STATUS = {"orders.status", "orders.status.items0"}
TOTAL = {"orders.total", "orders.total.items0"}
TOTAL_RANGE = {"orders.total", "orders.total.spans0"}
CITY = {"orders.address_city_rank_desc", "orders.address_city_rank_desc.items0"}


@pytest.mark.parametrize(
    ("wanted", "indexes", "count"),
    [
        ({"status": "new"}, STATUS, 2_200),
        ({"status": {"$in": ["new", "none"]}}, STATUS, 2_200),
        ({"status": ["paid", "new"]}, STATUS, 2_000),
        ({"total": 250}, TOTAL, 1),
        ({"total": -250}, TOTAL, 1),
        ({"total": {"$in": [1, 2.25, *range(1_000, 1_050)]}}, TOTAL, 52),
        ({"total": {"$gt": 49_950}}, TOTAL_RANGE, 199),
        ({"total": {"$gte": 100, "$lt": 110}}, TOTAL_RANGE, 39 + 1_996),
        ({"total": {"$gte": "1005", "$lt": "1006"}}, TOTAL_RANGE, 1),
        ({"total": {"$regex": "^1005"}}, TOTAL_RANGE, 1),
        ({"total": {"$regex": r"\A1005$"}}, TOTAL, 1),
        ({"$or": [{"total": {"$regex": "^100.*5$"}}, {"address.city": "city 77"}]}, CITY | TOTAL_RANGE, 103),
        ({"address.city": {"$regex": "^city 77$"}}, CITY, 100),
        ({"address.city": "city 77"}, CITY, 100),
        ({"address.city": "city 100", "total": {"$gt": 1_000}}, CITY, 98),
        ({"$or": [{"address.city": "city 77"}, {"total": 9}]}, CITY | TOTAL, 101),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_filter_uses_the_index_of_its_path(
    orders: Collection, wanted: dict[str, Any], indexes: set[str], count: int
) -> None:
    plan = orders.explain(wanted)
    assert "Seq Scan" not in plan
    assert indexes <= parts(plan), plan
    for _, low, high in re.findall(r"Index Cond: (.*) >= '(.*?)'::text\) AND .* <=? '(.*?)'::text", plan):
        assert len(low) > 1 or len(high) > 1  # bounded by the query on at least one side
    assert orders.count(wanted) == count


@pytest.mark.parametrize(
    ("sort", "index", "first"),
    [
        ("total", "orders.total", ["000001", "000002", "000003"]),
        ("-total", "orders.total", ["199900", "199800", "199700"]),
        (["address.city", "-rank"], "orders.address_city_rank_desc", ["199900", "199800", "199700"]),
        (["-address.city", "rank"], "orders.address_city_rank_desc", ["000999", "002999", "004999"]),
    ],
    ids=str,
)
def test_a_sort_reads_the_index_in_order(orders: Collection, sort: Any, index: str, first: list[str]) -> None:
    plan = orders.explain(sort=sort, limit=3)
    assert "Seq Scan" not in plan
    assert parts(plan) == {index}, plan
    assert [document.id for document in orders.find(sort=sort, limit=3)] == first


def branch_with(plan: str, index: str) -> str:
    """Return the branch of a plan that finds no arrays: it reads a range or equal keys of the index in order."""
    branches = re.split(r"(?m)^ +->  (?=Limit )", plan)[1:]
    return next(branch for branch in branches if re.search(rf'"{index}\.\w{{10}}"', branch))


@pytest.mark.parametrize(
    ("wanted", "sort", "index", "first"),
    [
        ({"total": {"$gt": 1_000}}, "total", "orders.total", ["004001", "004002", "004003"]),
        ({"address.city": "city 1"}, "-rank", "orders.address_city_rank_desc", ["198001", "196001", "194001"]),
        ({"address.city": "city 100"}, ["-rank"], "orders.address_city_rank_desc", ["198100", "196100", "194100"]),
        (
            {"address.city": "city 1", "rank": {"$lt": 100_000}},
            "-rank",
            "orders.address_city_rank_desc",
            ["098001", "096001", "094001"],
        ),
    ],
    ids=str,
)
def test_the_first_documents_are_read_from_an_index_in_order_despite_arrays(
    orders: Collection, wanted: dict[str, Any], sort: Any, index: str, first: list[str]
) -> None:
    plan = orders.explain(wanted, sort=sort, limit=3)
    assert "Seq Scan" not in plan
    branch = branch_with(plan, index)
    assert parts(branch) == {index}, plan
    assert "Bitmap" not in branch
    assert "Filter" not in branch
    assert [document.id for document in orders.find(wanted, sort=sort, limit=3)] == first
    assert [document.id for document in orders.find(wanted, sort=sort, limit=2, skip=1)] == first[1:]


@pytest.mark.parametrize(
    ("wanted", "sort", "index", "first"),
    [
        ({"address.city": "city 1"}, "-rank", "orders.address_city_rank_desc", "198001"),
        ({"total": {"$gt": 1_000}}, "total", "orders.total", "004001"),
    ],
    ids=str,
)
def test_a_claimed_document_is_read_from_an_index_in_order_despite_arrays(
    orders: Collection, wanted: dict[str, Any], sort: str, index: str, first: str
) -> None:
    found = orders._table.first(parse_filter(wanted), parse_sort(sort), CLAIMING)
    rows = orders._session.fetch(f"EXPLAIN {found.text}".encode(), found.params)
    branch = branch_with("\n".join(row[0] for row in rows), index)
    assert parts(branch) == {index}
    assert "Bitmap" not in branch
    claimed = orders.update_one(wanted, {"$set": {"claimed": True}}, sort=sort, skip_locked=True)
    assert claimed is not None
    assert claimed.id == first
    orders.update(first, {"$unset": {"claimed": ""}})


def test_a_find_without_an_index_computes_no_sort_keys(orders: Collection) -> None:
    for wanted in {"rank": 7}, {"rank": {"$gt": 199_990}}, {"$nor": [{"status": "old"}]}:
        plan = orders.explain(wanted)
        assert "Seq Scan" in plan
        assert "sort_key" not in plan
        assert "found_keys" not in plan


def test_partial_and_wildcard_indexes_are_used(orders: Collection) -> None:
    late = {"total": {"$gte": 49_999}}
    orders.create_index("address.city", name="late", where=late)
    plan = orders.explain({"address.city": "city 1999", **late})
    assert "orders.late" in parts(plan), plan
    assert orders.count({"address.city": "city 1999", **late}) == 1
    for name in ["late", *(index.name for index in orders.indexes() if index.paths != ("status",))]:
        orders.drop_index(name)
    orders.create_index("$**")
    for wanted, count in ({"address.city": "city 77"}, 100), ({"total": {"$in": [1, 2.25]}}, 2):
        plan = orders.explain(wanted)
        assert any(name.startswith("orders.all") for name in parts(plan)), plan
        assert orders.count(wanted) == count
