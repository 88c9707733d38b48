"""How long a server is waited for.

A network that went silent answers nothing and says nothing: without a bound, a statement sent into it would hold its
thread for ever, and with that the `close()` that wants the thread to end. So every statement has a limit, and what
runs on a thread of the library gives up as soon as that thread is to end.
"""

from __future__ import annotations

import contextlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import psycopg

from pgdoc.runtime.fork import connecting, lead_nowhere, remember

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGconn

    T = TypeVar("T")

LIMIT_S = 20.0
"""No statement of ours takes longer, but the few that say so."""


class DeadlineExceeded(psycopg.OperationalError):
    """The server was waited for in vain."""


class _Deadline(NamedTuple):
    limit_s: float = LIMIT_S
    until: float = float("inf")
    closing: threading.Event | None = None

    def deadline(self) -> float:
        """Give when a statement that begins now is given up."""
        return min(time.monotonic() + self.limit_s, self.until)

    def check(self, deadline: float) -> None:
        """Raise where it is to be given up.

        Raises:
            GivenUp: it is.
        """
        if self.closing is not None and self.closing.is_set():
            raise DeadlineExceeded("given up, as the store is being closed")
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("the server did not answer in time")


_DEFAULT = _Deadline()
_current: ContextVar[_Deadline] = ContextVar("_patience", default=_DEFAULT)


@contextlib.contextmanager
def deadline_scope(
    limit_s: float | None = None, *, until: float | None = None, closing: threading.Event | None = None
) -> Iterator[None]:
    """Change, inside the block and on this thread, how long the connections of `connect` wait for the server.

    Args:
        limit_s: for the answer to one statement.
        until: a time of `time.monotonic` by which all of the block is over.
        closing: when it is set, whatever waits gives up within a tenth of a second.
    """
    before = _current.get()
    token = _current.set(
        _Deadline(
            limit_s=before.limit_s if limit_s is None else limit_s,
            until=before.until if until is None else until,
            closing=before.closing if closing is None else closing,
        )
    )
    try:
        yield
    finally:
        _current.reset(token)


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose waits end; one that was given up is closed, for its answer may still come."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        remember(self)

    def after_fork(self) -> None:
        """Leave the socket to the parent."""
        lead_nowhere(self)

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        return bounded(connecting(super()._connect_gen(conninfo)))

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait for what psycopg does step by step.

        Raises:
            GivenUp: it took too long, or the thread is to end.
        """
        return super().wait(closing_on_deadline(self.pgconn, bounded(gen)), *args, **kwargs)


def closing_on_deadline(pgconn: PGconn, steps: PQGen[T]) -> PQGen[T]:
    """Close the connection where `steps` are given up: its answer may still come."""
    try:
        return (yield from steps)
    except DeadlineExceeded:
        pgconn.finish()
        raise


def is_limited() -> bool:
    """Whether a `deadline_scope` block is around this call."""
    return _current.get() is not _DEFAULT


def bounded(steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """Bound `steps`, which psycopg resumes every tenth of a second, by the enclosing `deadline_scope`."""
    return _bounded(steps, _current.get())


def _bounded(steps: Generator[Any, Any, T], allowed: _Deadline) -> Generator[Any, Any, T]:
    deadline = allowed.deadline()
    try:
        waited_for = next(steps)
        while True:
            ready = yield waited_for
            if not ready:
                allowed.check(deadline)
            waited_for = steps.send(ready)
    except StopIteration as done:
        answer: T = done.value
        return answer
    finally:
        steps.close()
