"""`deadline_scope`: bounds for every wait for a server.

A dead network reports no error. Without a bound, a statement would block its thread forever, and so would the `close()`
that waits for the thread. So every statement has a time limit, and on pgdoc's own threads it also gives up when the
thread has to end.
"""

from __future__ import annotations

import contextlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import psycopg

from pgdoc.runtime.encoding import in_utf8
from pgdoc.runtime.fork import connecting, detach, remember
from pgdoc.runtime.secrets import without_secrets

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

    from psycopg.abc import PQGen, PQGenConn
    from psycopg.pq.abc import PGconn

    T = TypeVar("T")

LIMIT_S = 20.0
"""The limit for one statement; the few that may take longer set their own."""


class DeadlineExceeded(psycopg.OperationalError):
    """The server did not answer within the limit, or the store is being closed."""


class _Deadline(NamedTuple):
    limit_s: float = LIMIT_S
    until: float = float("inf")
    closing: threading.Event | None = None

    def deadline(self) -> float:
        """Return when a statement that begins now has to end."""
        return min(time.monotonic() + self.limit_s, self.until)

    def check(self, deadline: float) -> None:
        if self.closing is not None and self.closing.is_set():
            raise DeadlineExceeded("canceled, because the store is being closed")
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("the server did not answer in time")


_DEFAULT = _Deadline()
_current: ContextVar[_Deadline] = ContextVar("deadline_scope", default=_DEFAULT)


@contextlib.contextmanager
def deadline_scope(
    limit_s: float | None = None, *, until: float | None = None, closing: threading.Event | None = None
) -> Iterator[None]:
    """Bound how long connections wait for the server inside the block, on this thread or task.

    `None` keeps the value of the enclosing block; the first one has a limit of `LIMIT_S`. Outside of any, a user's
    statement may take any time on a connection of a store, while all other connections have that limit.

    Args:
        limit_s: for the answer to one statement.
        until: the time of `time.monotonic` by which every statement has to end.
        closing: when set, waiting statements give up within a tenth of a second.
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
    """A connection whose waits are bounded by the enclosing `deadline_scope`."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        remember(self)

    def after_fork(self) -> None:
        """Detach from the socket, which belongs to the parent."""
        detach(self)

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        return without_secrets(bounded(connecting(super()._connect_gen(in_utf8(conninfo)))), conninfo)

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Run the steps of a psycopg operation within their deadline."""
        return super().wait(closing_on_deadline(self.pgconn, bounded(gen)), *args, **kwargs)


def closing_on_deadline(pgconn: PGconn, steps: PQGen[T]) -> PQGen[T]:
    """Close the connection if `steps` exceed their deadline, because the late answer could be taken for another's."""
    try:
        return (yield from steps)
    except DeadlineExceeded:
        pgconn.finish()
        raise


def left_s() -> float:
    """Return how long a statement that begins now may take."""
    return _current.get().deadline() - time.monotonic()


def is_limited() -> bool:
    """Return whether this call is inside a `deadline_scope` block."""
    return _current.get() is not _DEFAULT


def is_closing() -> bool:
    """Return whether the thread has to end, as the enclosing `deadline_scope` says."""
    closing = _current.get().closing
    return closing is not None and closing.is_set()


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
