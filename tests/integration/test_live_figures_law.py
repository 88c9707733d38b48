"""The law of live aggregates and mirrors: at their place in the WAL, they are what the documents give there."""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc.query import matches, parse_filter
from tests.background import Background
from tests.live_law import NAME, PATIENCE_S, History, cut, writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc import LiveAggregate, LiveAggregateChange

Documents = dict[str, tuple[int, dict[str, Any]]]


@dataclass
class Figure:
    """A live aggregate, how it is computed of all documents, and what it has shown, each at an LSN."""

    open: Callable[[pgdoc.Collection], LiveAggregate[Any]]
    compute: Callable[[list[int]], Any]
    filter: dict[str, Any] | None = None
    by: str | None = None
    pause_s: float = 0.0
    shown: list[tuple[int, dict[Any, Any]]] = field(default_factory=list)

    def of(self, documents: Documents) -> dict[Any, Any]:
        node, groups = parse_filter(self.filter), defaultdict[Any, list[int]](list)
        for key, (_, data) in documents.items():
            if matches(node, key, data):
                groups[None if self.by is None else data.get(self.by)].append(data["n"])
        if self.by is None:
            groups.setdefault(None, [])
        return {group: self.compute(numbers) for group, numbers in groups.items()}

    def look(self, query: LiveAggregate[Any]) -> dict[Any, Any]:
        values = {None: query.value} if self.by is None else dict(query.groups)
        self.shown.append((query.resume_token.position[0], values))
        return values


def average(numbers: list[int]) -> Decimal | None:
    return Decimal(sum(numbers)) / len(numbers) if numbers else None


def figures() -> list[Figure]:
    some = {"n": {"$gte": 10}}
    return [
        Figure(lambda orders: orders.live_count(), len),
        Figure(lambda orders: orders.live_count(some, by="customer"), len, some, "customer"),
        Figure(lambda orders: orders.live_sum("n"), sum, pause_s=0.05),
        Figure(lambda orders: orders.live_sum("n", by="customer"), sum, by="customer"),
        Figure(lambda orders: orders.live_average("n", {"customer": "c1"}), average, {"customer": "c1"}),
        Figure(lambda orders: orders.live_average("n", by="n"), average, by="n", pause_s=0.1),
    ]


def apply(values: dict[Any, Any], change: LiveAggregateChange[Any]) -> None:
    assert values.get(change.group) == change.old_value
    if change.kind == "removed":
        del values[change.group]
    else:
        values[change.group] = change.value


def follow(store: pgdoc.Store, figure: Figure, end: list[int]) -> None:
    with figure.open(store[NAME]) as query:
        values = dict(figure.look(query))
        deadline = time.monotonic() + PATIENCE_S
        while not end or query.resume_token.position[0] < end[0]:
            assert time.monotonic() < deadline
            for change in query.next_batch(timeout=0.05):
                apply(values, change)
            assert values == figure.look(query)
            time.sleep(figure.pause_s)


def follow_mirror(store: pgdoc.Store, seen: list[tuple[int, int, dict[str, int]]], end: list[int]) -> None:
    with store.mirror(NAME, {"n": {"$gte": 10}}) as mirror:
        while not seen or not end or seen[-1][0] < end[0]:
            before = mirror.resume_token
            versions = {document.id: document.version for document in mirror.values()}
            seen.append((before.position[0], mirror.resume_token.position[0], versions))
            assert all(document["n"] >= 10 for document in mirror.copy().values())
            with contextlib.suppress(pgdoc.WaitTimeout):
                mirror.wait_for(timeout=0.02)
        mirror.wait_for()
        assert dict(mirror) == {document.id: document for document in store[NAME].find({"n": {"$gte": 10}})}


class Places(History):
    """The same, with all places between two."""

    def between(self, after: int, until: int) -> list[tuple[int, Documents]]:
        """Return the number and the documents of each place from `after` to `until`."""
        first, last = bisect_left(self._ends, after), bisect_left(self._ends, until)
        return [(number, self._states[number]) for number in range(first, last + 1)]


def check_mirror(seen: list[tuple[int, int, dict[str, int]]], places: Places) -> None:
    reached = 0
    for after, until, versions in seen:
        possible = [
            number
            for number, documents in places.between(after, until)
            if number >= reached and versions_of(documents) == versions
        ]
        assert possible, f"no place between {pgdoc.Lsn(after)} and {pgdoc.Lsn(until)} has {versions}"
        reached = possible[0]


def versions_of(documents: Documents) -> dict[str, int]:
    return {key: version for key, (version, data) in documents.items() if data["n"] >= 10}


@pytest.mark.parametrize("cuts", [0, 2])
def test_figures_and_mirrors_are_those_of_the_documents_at_their_place(
    shared_dsn: str, schema: str, cuts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.live.inbox.MOST_BATCHES", 8)
    history, all_figures, end = Places(), figures(), list[int]()
    mirrored: list[tuple[int, int, dict[str, int]]] = []
    with (
        pgdoc.Store(shared_dsn, schema=schema) as independent,
        pgdoc.Store(shared_dsn, schema=schema) as store,
        independent.watch(NAME) as stream,
    ):
        with contextlib.ExitStack() as stack:
            for figure in all_figures:
                stack.enter_context(Background(follow, store, figure, end))
            stack.enter_context(Background(follow_mirror, store, mirrored, end))
            try:
                with writing(shared_dsn, schema, seed=cuts, writers=3, documents=60):
                    for _ in range(cuts + 1):
                        time.sleep(0.7)
                        if cuts:
                            cut(shared_dsn)
            finally:
                end.append(store.now())
        while stream.resume_token.position[0] < end[0]:
            event = stream.next(timeout=0.05)
            if event is not None:
                history.take(event)
    assert len(history) > 20
    for figure in all_figures:
        places = [place for place, _ in figure.shown]
        assert places == sorted(places)
        for place, values in figure.shown:
            assert values == figure.of(history.at(place)), f"at {pgdoc.Lsn(place)}"
    check_mirror(mirrored, history)
