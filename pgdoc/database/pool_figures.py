"""The figures of a store's pools for metrics: an entry of the census."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.runtime.census import LabelledValue, Labels


class _Pool(Protocol):
    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's figures."""


class _Pools(Protocol):
    def open_pools(self) -> Sequence[_Pool]:
        """Return the pools that are open."""


class PoolFigures:
    """What the pools of one store count. It does not keep them alive."""

    def __init__(self, labels: Labels, pools: _Pools) -> None:
        self._labels = labels
        self._pools = weakref.ref(pools)
        self._waited_ms = 0  # as far as was seen: a closed pool says nothing

    def counts(self) -> Iterable[LabelledValue]:
        """See `Entry`."""
        self._waited_ms = max(self._waited_ms, _sum("requests_wait_ms", self._stats()))
        yield ("pgdoc_pool_wait_seconds_total", self._labels), self._waited_ms / 1000

    def gauges(self) -> Iterable[LabelledValue]:
        """See `Entry`."""
        stats = self._stats()
        if stats:
            used = _sum("pool_size", stats) - _sum("pool_available", stats)
            yield ("pgdoc_pool_used_connections", self._labels), max(0, used)
            yield ("pgdoc_pool_max_connections", self._labels), _sum("pool_max", stats)
            yield ("pgdoc_pool_waiting_calls", self._labels), _sum("requests_waiting", stats)

    def goes_on_in_child(self) -> bool:
        """See `Entry`: a store whose pool was not open yet can be used in a child process."""
        self._waited_ms = 0
        return True

    def _stats(self) -> list[dict[str, int]]:
        pools = self._pools()
        return [] if pools is None else [pool.get_stats() for pool in pools.open_pools()]


def _sum(name: str, stats: Sequence[dict[str, int]]) -> int:
    return sum(each.get(name, 0) for each in stats)
