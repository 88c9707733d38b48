"""Run a worker or a relay for the duration of a block."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pgdoc.model.short_repr import short_repr
from pgdoc.testing.blocks import check_block

if TYPE_CHECKING:
    from collections.abc import Coroutine


class _Runs(Protocol):
    """What `running` runs: a `Worker`, a `Relay` or a `WebhookRelay`."""

    def run(self) -> None: ...
    def stop(self) -> None: ...


class _RunsAsync(Protocol):
    def run(self) -> Coroutine[Any, Any, None]: ...
    def stop(self) -> None: ...


R = TypeVar("R", _Runs, _RunsAsync)

__all__ = ["running"]


class running(Generic[R]):  # noqa: N801 (a context manager, called like a function)
    """Run a worker or a relay beside a block, and stop it at the end; `async with` for an async one.

    ::

        with running(worker):
            orders.insert("o-1", {"total": 20})
            store.wait_for("totals")

    A worker's consumers exist when the block begins, so nothing that the block commits is missed. The end of the block
    raises what ended `run`; if the block has raised an error itself, that error gets a note of it.

    Args:
        program: a `Worker`, a `Relay` or a `WebhookRelay`, or an async one. A sync one runs in a thread.
    """

    def __init__(self, program: R) -> None:
        if not callable(getattr(program, "run", None)):
            raise TypeError(f"running() takes a worker or a relay, got {short_repr(program)}")
        self._program: R = program
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def __enter__(self: running[_Runs]) -> _Runs:
        self._check(wants_async=False)
        if declare := getattr(self._program, "declare", None):
            declare()
        self._thread = threading.Thread(target=self._run, name=f"running-{type(self._program).__name__}", daemon=True)
        self._thread.start()
        return self._program

    def _run(self: running[_Runs]) -> None:
        try:
            self._program.run()
        except BaseException as exc:  # noqa: BLE001 (raised by the thread of the block)
            self._error = exc

    def __exit__(self: running[_Runs], _kind: object, error: BaseException | None, _traceback: object) -> None:
        assert self._thread is not None  # noqa: S101 (set by __enter__)
        self._program.stop()
        self._thread.join()
        self._report(error)

    async def __aenter__(self: running[_RunsAsync]) -> _RunsAsync:
        self._check(wants_async=True)
        if declare := getattr(self._program, "declare", None):
            await declare()
        self._task = asyncio.get_running_loop().create_task(self._program.run(), name="running")
        return self._program

    async def __aexit__(
        self: running[_RunsAsync], _kind: object, error: BaseException | None, _traceback: object
    ) -> None:
        assert self._task is not None  # noqa: S101 (set by __aenter__)
        self._program.stop()
        await asyncio.wait([self._task])
        self._error = None if self._task.cancelled() else self._task.exception()
        self._report(error)

    def _report(self, of_block: BaseException | None) -> None:
        """Raise what ended the program, or note it at the error of the block, which may have waited for the program."""
        if self._error is None:
            return
        if of_block is None:
            raise self._error
        of_block.add_note(f"{type(self._program).__name__}.run() raised {self._error!r}")

    def _check(self, *, wants_async: bool) -> None:
        is_async = inspect.iscoroutinefunction(self._program.run)
        check_block("running", self._program, is_async=is_async, wants_async=wants_async)
