"""Live counts, sums and averages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pgdoc._async.live_handle import AsyncLiveHandle
from pgdoc.changes.events import twin_of
from pgdoc.crud.find_query import Search
from pgdoc.errors import InvalidInput, StreamError
from pgdoc.live.aggregates import (
    Aggregate,
    AggregateKind,
    Groups,
    GroupValues,
    LiveAggregateChange,
    changes_between,
    with_changes,
)
from pgdoc.live.routing import required_value
from pgdoc.live.shared import LiveWanted
from pgdoc.model.short_repr import short_repr
from pgdoc.query.filters.paths import parse_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgdoc._async.live_reader import AsyncLiveReader
    from pgdoc._async.live_sources import AsyncLiveSources
    from pgdoc.live.shared import LiveRows
    from pgdoc.live.state import LiveState
    from pgdoc.query.filters.nodes import Path

__all__ = ["AsyncLiveAggregate", "live_aggregate"]

V = TypeVar("V")


class AsyncLiveAggregate(AsyncLiveHandle[LiveAggregateChange[V]], Generic[V]):
    """A count, a sum or an average of the documents that match a filter, and how it changes.

    Returned by `live_count()`, `live_sum()` and `live_average()`. Iterate over it, or call `next` or `next_batch`. Only
    one task may read it.

    As the documents of a live query, the values only move between places in the WAL where transactions end.
    """

    def __init__(
        self, sources: AsyncLiveSources, name: str, wanted: LiveWanted[LiveAggregateChange[V]], *, has_groups: bool
    ) -> None:
        super().__init__(sources, name, wanted)
        self._has_groups = has_groups

    def _again(self) -> AsyncLiveAggregate[V]:
        """Return the same query, not open yet."""
        return AsyncLiveAggregate(self._sources, self._name, self._wanted, has_groups=self._has_groups)

    @property
    def value(self) -> V:
        """The value at the handle's place.

        Raises:
            InvalidInput: it was opened with `by`, so there are `groups`.
            StreamError: an async query is not open yet.
        """
        if self._has_groups:
            raise InvalidInput("a live query with by has a value for each group: read its groups")
        ((_, value),) = self._values.values()
        found: V = value
        return found

    @property
    def groups(self) -> Groups[V]:
        """The value of each group at the handle's place.

        Raises:
            InvalidInput: it was opened without `by`, so there is one `value`.
            StreamError: an async query is not open yet.
        """
        if not self._has_groups:
            raise InvalidInput("a live query without by has no groups: read its value")
        return Groups(self._values)

    @property
    def _values(self) -> GroupValues:
        if self._result is None:
            raise StreamError("the live query is not open: await it, or enter it, first")
        values: GroupValues = self._result
        return values

    def _shown(self, state: LiveState[LiveAggregateChange[V]]) -> GroupValues:
        assert isinstance(state, Aggregate)  # noqa: S101 (see `live_aggregate`)
        return state.values

    def _result_of(self, shown: GroupValues) -> GroupValues:
        return shown

    def _changes_to(self, shown: GroupValues) -> list[LiveAggregateChange[V]]:
        return changes_between(self._values, shown)

    def _handed_out(self, changes: list[LiveAggregateChange[V]]) -> tuple[list[LiveAggregateChange[V]], GroupValues]:
        own = [each if each.event is None else replace(each, event=twin_of(each.event)) for each in changes]
        return own, with_changes(self._values, changes, has_groups=self._has_groups)


def live_aggregate(  # noqa: PLR0913
    sources: AsyncLiveSources | None,
    name: str,
    kind: AggregateKind,
    path: str | None,
    filter: Mapping[str, Any] | None,  # noqa: A002
    *,
    by: str | None,
) -> AsyncLiveAggregate[Any]:
    """Check the arguments, and return the query, which is not open yet."""
    if sources is None:
        raise StreamError(
            f'"{name}" has no live queries inside a transaction: call live_{kind}() on the store\'s collection'
        )
    numbers, group = None if path is None else _path(path), None if by is None else _path(by)
    search = Search(filter, encoder=sources.session.codec.encoder)
    node = search.node

    async def read(reader: AsyncLiveReader, state: Aggregate) -> LiveRows | None:
        return await reader.totals(search, numbers, group, state)

    wanted = LiveWanted(
        key=(str(kind), repr(node), numbers, group),
        required=required_value(node),
        make_state=lambda: Aggregate(node, kind, numbers, group),
        read=read,
    )
    return AsyncLiveAggregate[Any](sources, name, wanted, has_groups=by is not None)


def _path(path: str) -> Path:
    if not isinstance(path, str) or not path or path.startswith("-"):
        raise InvalidInput(f"{short_repr(path)} is not a path: use one such as 'address.city'")
    return parse_path(path)
