"""Keeps a child of `os.fork` from using its parent's sockets, and locks whose holders do not exist in the child.

Closing an inherited connection would end the parent's session on the server, and a child that outlives a killed parent
would keep that session open. So the child replaces its copies of the sockets by /dev/null, which does not affect the
parent, and every remembered object learns of the fork.

While libpq opens a connection, its socket may not be known yet. So a fork waits for that step: usually microseconds,
longer while a host name is resolved, but a second at most.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Protocol, TypeVar

import psycopg

if TYPE_CHECKING:
    from typing import Any

    from psycopg.abc import PQGenConn

__all__ = ["FORKED", "connecting", "detach", "remember"]

T = TypeVar("T")

_FORK_WAITS_S = 1.0

FORKED = "this store was made before the process forked: make a store of its own in the child process"


class _Inherited(Protocol):
    def after_fork(self) -> None:
        """Adapt to the child process; called there before anything else runs."""


_remembered: weakref.WeakSet[_Inherited] = weakref.WeakSet()


def remember(thing: _Inherited) -> None:
    """Have `thing.after_fork` called in the children of this process."""
    _remembered.add(thing)


def detach(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Replace this process's copy of a connection's socket by /dev/null."""
    with contextlib.suppress(psycopg.OperationalError):  # it is closed
        _replace(connection.pgconn.socket)


class _Steps:
    """Counts the threads that are inside libpq to open a connection.

    The lock of `_quiet` guards `_inside`, and is held during a fork, so that no thread begins a step.
    """

    def __init__(self) -> None:
        self.after_fork_in_child()

    def __enter__(self) -> None:
        with self._quiet:
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._quiet:
            self._inside -= 1
            self._quiet.notify_all()

    def before_fork(self) -> None:
        """Wait until no thread is inside libpq, and keep the lock."""
        deadline = time.monotonic() + _FORK_WAITS_S
        self._quiet.acquire()
        while self._inside and (left_s := deadline - time.monotonic()) > 0:
            self._quiet.wait(left_s)

    def after_fork_in_parent(self) -> None:
        self._quiet.release()

    def after_fork_in_child(self) -> None:
        """Start again with a new lock and no threads: the parent's do not exist here."""
        self._quiet = threading.Condition()
        self._inside = 0


_steps = _Steps()


class _Connecting:
    """The socket of a connection that is being opened."""

    def __init__(self) -> None:
        self.descriptor: int | None = None
        remember(self)

    def after_fork(self) -> None:
        if self.descriptor is not None:
            _replace(self.descriptor)


def connecting(steps: PQGenConn[T]) -> PQGenConn[T]:
    """Run the steps in which psycopg opens a connection; a fork can only happen between two of them."""
    pending = _Connecting()
    try:
        with _steps:
            waited_for = next(steps)
            pending.descriptor = waited_for[0]
        while True:
            ready = yield waited_for
            with _steps:
                waited_for = steps.send(ready)
                pending.descriptor = waited_for[0]
    except StopIteration as done:
        made: T = done.value
        return made
    finally:
        pending.descriptor = None
        steps.close()


def _replace(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def _after_fork_in_child() -> None:
    _steps.after_fork_in_child()
    for thing in list(_remembered):
        thing.after_fork()


os.register_at_fork(
    before=_steps.before_fork, after_in_parent=_steps.after_fork_in_parent, after_in_child=_after_fork_in_child
)
