"""The law of large filters: cost grows at most with their size, and an index makes none of them dearer.

The cost is a number: rows and buffers of the plan that ran, and calls of pgdoc's functions; never a time.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import Store
from pgdoc.errors import InvalidFilter, InvalidInput
from pgdoc.query import parse_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc import Collection
    from pgdoc.query import Compiled
    from tests.fixtures.fix_server import Server

DOCUMENTS = 1_500
SIZES = (1, 10, 300, 2_000)
# One document in fifty has an array where the others have a number; all have arrays of tags, whose spans overlap.
FILL = f"""
INSERT INTO sizes.{{}} (id, data)
SELECT n, jsonb_build_object('n', CASE WHEN n % 50 = 0 THEN jsonb_build_array(n) ELSE to_jsonb(n) END,
  'name', 'name ' || n, 'tags', jsonb_build_array('a ' || n, 'z ' || n),
  'lines', jsonb_build_array(jsonb_build_object('sku', n)), 'pad', repeat('x', 200))
FROM generate_series(1, {DOCUMENTS}) AS n
"""

FILTERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "equalities": lambda size: {"$or": [{"n": n} for n in range(size)]},
    "texts": lambda size: {"$or": [{"name": f"name {n}"} for n in range(size)]},
    "two paths": lambda size: {"$or": [{"n": n} if n % 2 else {"name": f"name {n}"} for n in range(size)]},
    "pairs": lambda size: {"$or": [{"n": n, "name": f"name {n}"} for n in range(size)]},
    "nested": lambda size: {"$or": [{"$or": [{"n": n}, {"$or": [{"name": f"name {n}"}]}]} for n in range(size)]},
    "in": lambda size: {"n": {"$in": list(range(size))}},
    "in arrays": lambda size: {"tags": {"$in": [f"a {n}" for n in range(size)]}},
    "below arrays": lambda size: {"$or": [{"lines.sku": n} for n in range(size)]},
    "null below arrays": lambda size: {"lines.sku": {"$in": [None, *range(size)]}},
    "all": lambda size: {"tags": {"$all": [f"a {n}" for n in range(size)]}},
    "ranges": lambda size: {"$or": [{"n": {"$gt": n, "$lt": n + 2}} for n in range(0, 2 * size, 2)]},
    "open ranges": lambda size: {"$or": [{"n": {"$gt": 1_400 + n}} for n in range(size)]},
    "ranges in arrays": lambda size: {"$or": [{"tags": {"$gt": f"a {n}", "$lt": f"a {n}~"}} for n in range(size)]},
    "not": lambda size: {"$and": [{"n": {"$ne": n}} for n in range(size)]},
    "nor": lambda size: {"$nor": [{"n": n} for n in range(size)]},
    "not indexed": lambda size: {"$or": [{"n": 1}, *({"pad": f"{n}"} for n in range(size))]},
}


@pytest.fixture(scope="module")
def filled(server: Server, shared_database: str) -> Iterator[dict[str, Any]]:
    arguments: dict[str, Any] = {"conninfo": server.conninfo_for(shared_database), "schema": "sizes"}
    with Store(**arguments) as store:
        for name in "plain", "indexed":
            store.create_collection(name)
            with store.transaction() as tx:
                tx.connection.execute(FILL.format(name).encode())
        for path in "n", "name", "tags", "lines.sku":
            store["indexed"].create_index(path)
        with store.transaction() as tx:
            tx.connection.execute("ANALYZE sizes.plain, sizes.indexed")
    yield arguments
    with Store(**arguments) as store:
        for name in "plain", "indexed":
            store.drop_collection(name)


@pytest.fixture
def store(filled: dict[str, Any]) -> Iterator[Store]:
    filled = {**filled, "conninfo": f"{filled['conninfo']} options='-c jit=off -c max_parallel_workers_per_gather=0'"}
    with Store(**filled) as store:
        yield store


CALLS = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_xact_user_functions WHERE schemaname = 'pgdoc'"


def compiled(docs: Collection, wanted: dict[str, Any]) -> Compiled:
    return docs._table.condition(parse_filter(wanted))


def cost(store: Store, name: str, wanted: dict[str, Any]) -> tuple[int, float]:
    """Return the matches, and what finding them took."""
    condition = compiled(store[name], wanted)
    query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT FROM sizes.{name} WHERE {condition.text}"
    with store.transaction() as tx:
        tx.connection.execute("SET LOCAL track_functions = 'all'")
        ((found,),) = tx.connection.execute(query.encode(), condition.params, prepare=False).fetchall()
        ((calls,),) = tx.connection.execute(CALLS).fetchall()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    conditions = condition.text.count("%s::pg_catalog.jsonpath")
    return plan["Actual Rows"], rows_of(plan, conditions) + plan["Shared Hit Blocks"] + plan[
        "Shared Read Blocks"
    ] + calls


def rows_of(plan: dict[str, Any], conditions: int) -> float:
    """Return the rows that all nodes returned or removed.

    A row of the table costs one, and a tenth for each condition that it may be tested on. An entry of an index in a
    bitmap costs a fifth.
    """
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    rows: float = (plan["Actual Rows"] + sum(plan.get(name, 0) for name in removed)) * plan["Actual Loops"]
    if "Relation Name" in plan:
        rows *= 1 + conditions / 10
    elif "Bitmap Index" in plan["Node Type"]:
        rows *= 0.2
    return float(rows) + math.fsum(rows_of(child, conditions) for child in plan.get("Plans", []))


@pytest.mark.parametrize("name", FILTERS)
def test_an_index_makes_no_filter_dearer(store: Store, name: str) -> None:
    for size in SIZES:
        wanted = FILTERS[name](size)
        (found, without), (indexed, using) = cost(store, "plain", wanted), cost(store, "indexed", wanted)
        assert found == indexed
        # For each value, the server computes keys, and descends an index of three pages.
        assert using <= 1.5 * without + 8 * size, (size, using, without)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_costs_no_more_than_in_proportion_to_its_size(store: Store, name: str) -> None:
    for docs in store["plain"], store["indexed"]:
        lengths = [len(compiled(docs, FILTERS[name](size)).text) for size in (250, 1_000)]
        assert lengths[1] <= 4.1 * lengths[0]
    # An index that is good for few matches only gets near this cost with more of them.
    costs = [cost(store, "plain", FILTERS[name](size))[1] for size in (250, 1_000)]
    assert costs[1] <= 4.1 * costs[0] + DOCUMENTS


def test_equalities_on_one_path_are_one_condition(store: Store) -> None:
    for docs in store["plain"], store["indexed"]:
        for name in "equalities", "texts", "in", "below arrays", "not", "nor":
            many, more = (compiled(docs, FILTERS[name](size)) for size in (100, 900))
            assert many.text == more.text
            assert len(many.text) < 1_000


def test_a_long_list_is_planned_each_time(store: Store) -> None:
    names = [f"name {n}" for n in range(1_000)]
    for _ in range(12):  # psycopg prepares the sixth, and PostgreSQL could keep a plan without the list from then on
        assert store["indexed"].count({"name": {"$in": names}}) == 999
    with store.transaction() as tx:
        prepared = tx.connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%ANY%'")
        assert prepared.fetchone() == (0,)


def test_a_filter_that_the_protocol_can_not_send_is_refused(store: Store) -> None:
    docs, wanted = store["plain"], {"$or": [{"n": {"$gt": number}} for number in range(66_000)]}
    for call in docs.count, lambda wanted: list(docs.find(wanted)):
        with pytest.raises(InvalidFilter, match=r"filter has 66,000 conditions, .* 65,535: split .*\$in"):
            call(wanted)


def test_a_filter_with_too_many_parameters_is_refused_before_it_is_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.crud.statements.MOST_CONDITIONS", 600)
    docs, wanted = store["plain"], {"$or": [{"n": {"$mod": [7, number]}} for number in range(201)]}
    for call in docs.count, docs.find_one, lambda wanted: list(docs.find(wanted)), docs.delete_many:
        with pytest.raises(InvalidFilter, match=r"filter have 60[3-9] parameters, and PostgreSQL takes 600: split"):
            call(wanted)
    with store.bulk() as bulk:
        bulk["new"].insert("a", {})
        with pytest.raises(InvalidFilter, match="PostgreSQL takes 600"):
            bulk["new"].delete_many(wanted)
        with pytest.raises(InvalidFilter, match="PostgreSQL takes 600"):
            bulk["new"].update_many(wanted, {"$set": {"b": 1}})  # and the bulk goes on
    assert store["new"].get("a") is not None


def test_explain_shows_the_plan_of_the_call(store: Store) -> None:
    docs, wanted = store["indexed"], {"n": 7}
    assert "Limit" in docs.explain(wanted, limit=3)
    plans = {call: docs.explain(wanted, call=call) for call in ("count", "find_one", "update_many", "delete_many")}
    plans |= {call: docs.explain(wanted, call=call, sort="n") for call in ("update_one", "delete_one")}
    for call, plan in plans.items():
        assert "sort_key" in plan
        assert ("Limit" in plan) == call.endswith("_one") or call == "update_many", call
        assert ("LockRows" in plan) == call.startswith(("update", "delete")), call
        assert ("Aggregate" in plan) == (call == "count" or call.endswith("_many")), call
        assert ("Update on" in plan, "Delete on" in plan) == (call.startswith("update"), call.startswith("delete"))
    assert docs.count(wanted) == 1


def test_explain_refuses_what_the_call_does_not_have(store: Store) -> None:
    for arguments in (
        {"call": "insert"},
        {"call": None},
        {"call": ["find"]},
        {"call": "count", "limit": 0},
        {"call": "update_many", "sort": "n"},
        {"call": "update_one", "skip": 1},
        {"call": "find_one", "after": [1, "a"], "sort": "n"},
    ):
        with pytest.raises(InvalidInput):
            store["plain"].explain({"n": 1}, **arguments)
