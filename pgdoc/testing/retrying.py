"""Retry an assertion until it holds."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

__all__ = ["async_eventually", "eventually"]

TIMEOUT_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.1


def eventually(check: Callable[[], T], timeout: float = TIMEOUT_S) -> T:
    """Call `check` until it holds: until it raises nothing and does not return `False`.

    It is called at least twice, at first every few milliseconds.

    Args:
        check: a function with assertions, or a lambda with a condition.
        timeout: seconds after which its last error is raised.

    Returns:
        What `check` returned.

    Raises:
        AssertionError: `check` still returned `False`.
        RuntimeError: an event loop runs in this thread, which the call would block: use `async_eventually`.
        Exception: the last one that `check` raised; a note says for how long it was retried.
    """
    if _has_running_loop():
        raise RuntimeError("eventually() would block the event loop: use await async_eventually(...)")
    attempts = _Attempts(check, timeout)
    while True:
        try:
            result = check()
        except Exception as exc:  # noqa: BLE001 (a check may fail in any way, for now)
            attempts.failed(exc)
        else:
            if inspect.isawaitable(result):
                _discard(result)
                raise TypeError("eventually() takes a plain function: use await async_eventually(...)")
            if result is not False:
                return result
            attempts.failed(None)
        time.sleep(attempts.pause_s)


@overload
async def async_eventually(check: Callable[[], Awaitable[T]], timeout: float = ...) -> T: ...  # noqa: ASYNC109


@overload
async def async_eventually(check: Callable[[], T], timeout: float = ...) -> T: ...  # noqa: ASYNC109


async def async_eventually(
    check: Callable[[], Any],
    timeout: float = TIMEOUT_S,  # noqa: ASYNC109 (as `eventually`)
) -> Any:
    """Call `check`, a coroutine function or a plain one, until it holds; see `eventually`.

    Other tasks run in between. The timeout does not cancel a call that waits.
    """
    attempts = _Attempts(check, timeout)
    while True:
        try:
            found = check()
            result = await found if inspect.isawaitable(found) else found
        except Exception as exc:  # noqa: BLE001 (as above)
            attempts.failed(exc)
        else:
            if result is not False:
                return result
            attempts.failed(None)
        await asyncio.sleep(attempts.pause_s)


class _Attempts:
    """Counts failed attempts, and raises the last error when the time is over.

    Attributes:
        pause_s: how long to wait before the next attempt.
    """

    def __init__(self, check: Callable[[], Any], timeout_s: float) -> None:
        self._check = check
        self._timeout_s = timeout_s
        self._begun_at = time.monotonic()
        self._count = 0
        self.pause_s = _FIRST_PAUSE_S / 2

    def failed(self, error: Exception | None) -> None:
        """Note a failure: an exception, or `None` for `False`. Raise it if it was the last attempt."""
        self._count += 1
        left_s = self._begun_at + self._timeout_s - time.monotonic()
        if left_s > 0 or self._count == 1:  # a first call that takes long gets a second chance
            self.pause_s = max(0.0, min(self.pause_s * 2, _LONGEST_PAUSE_S, left_s))
            return
        if error is None:
            raise AssertionError(f"{_title(self._check)} returned False for {self._figures}")
        error.add_note(f"eventually() retried {_title(self._check)} for {self._figures}")
        raise error

    @property
    def _figures(self) -> str:
        return f"{self._timeout_s:g} s, {self._count} times"


def _title(check: Callable[[], Any]) -> str:
    name = getattr(check, "__qualname__", None) or repr(check)
    name = name.rpartition("<locals>.")[2]
    code = getattr(check, "__code__", None)
    return f"{name} (line {code.co_firstlineno})" if code is not None and "<lambda>" in name else name


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _discard(awaitable: object) -> None:
    """Close a coroutine that nobody awaits, so that Python does not warn about it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
