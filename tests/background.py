"""Runs a part of a test beside the rest: in a thread, or in a task."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LIMIT_S = 60.0


class Background:
    """Calls a function in a thread; the end of the block waits for it, and raises what it raised."""

    def __init__(self, function: Callable[..., object], *args: Any) -> None:
        self._function, self._args = function, args
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._function(*self._args)
        except BaseException as exc:  # noqa: BLE001 (raised at the end)
            self._error = exc

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join(_LIMIT_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


class AsyncBackground:
    """The same with a coroutine function, in a task."""

    def __init__(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        self._function, self._args = function, args

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._function(*self._args))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.wait_for(self._task, _LIMIT_S)
