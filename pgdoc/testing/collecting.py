"""Collect the events of a block."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pgdoc import AsyncStore, ChangeEvent, Store, WaitTimeout
from pgdoc.model.ids import new_id
from pgdoc.testing.blocks import check_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc import AsyncChangeStream, ChangeStream

S = TypeVar("S", Store, AsyncStore)

__all__ = ["collected"]

_TOPIC: Final = "pgdoc.testing.end"  # of the event that marks the end of the block


class collected(Generic[S]):  # noqa: N801 (a context manager, called like a function)
    """Collect the events of everything that is committed during a block; `with` or `async with`, as the store is.

    ::

        with collected(store, "orders") as events:
            place_order(store, "o-1")
        assert [event.event_type for event in events] == ["insert"]

    The list is complete after the block, which publishes an event of the topic `pgdoc.testing.end` and reads up to it.
    So an empty list means that nothing was written.

    Args:
        store: the store to watch.
        *names: collections, and tables as `"schema.table"`; none for all collections.
        topics: the topics of published events, as for `watch`.
        tables: without names, all watched tables as well.
        timeout: seconds that reading may take after the block.

    Raises:
        WaitTimeout: not everything was read in time. The list has what was read.
    """

    def __init__(
        self, store: S, *names: str, topics: Sequence[str] = (), tables: bool = False, timeout: float = 10.0
    ) -> None:
        self._store: S = store
        self._names = names or (() if tables or topics else ("*",))
        self._options: dict[str, Any] = {"topics": [*topics, _TOPIC], "tables": tables}
        self._timeout_s = timeout
        self._events: list[ChangeEvent] = []
        self._end = str(new_id())
        self._stream: Any = None

    def __enter__(self: collected[Store]) -> list[ChangeEvent]:
        self._check(wants_async=False)
        self._stream = self._store.watch(*self._names, **self._options)
        return self._events

    def __exit__(self: collected[Store], kind: type[BaseException] | None, *_exc: object) -> None:
        stream: ChangeStream = self._stream
        with stream:
            if kind is None:
                self._store.publish(_TOPIC, self._end)
                deadline = time.monotonic() + self._timeout_s
                while self._takes(stream.next(timeout=max(0.0, deadline - time.monotonic()))):
                    pass

    async def __aenter__(self: collected[AsyncStore]) -> list[ChangeEvent]:
        self._check(wants_async=True)
        self._stream = await self._store.watch(*self._names, **self._options)
        return self._events

    async def __aexit__(self: collected[AsyncStore], kind: type[BaseException] | None, *_exc: object) -> None:
        stream: AsyncChangeStream = self._stream
        async with stream:
            if kind is None:
                await self._store.publish(_TOPIC, self._end)
                deadline = time.monotonic() + self._timeout_s
                while self._takes(await stream.next(timeout=max(0.0, deadline - time.monotonic()))):
                    pass

    def _check(self, *, wants_async: bool) -> None:
        is_async = isinstance(self._store, AsyncStore)
        check_block("collected", self._store, is_async=is_async, wants_async=wants_async)

    def _takes(self, event: ChangeEvent | None) -> bool:
        """Keep an event; return whether more are to come."""
        if event is None:
            raise WaitTimeout(
                f"the events of the block did not arrive within {self._timeout_s:g} s: {len(self._events)} did; "
                "pass a longer timeout"
            )
        if event.topic != _TOPIC:
            self._events.append(event)
            return True
        return bool(event.payload != self._end)  # other blocks, at the same time, have their own
