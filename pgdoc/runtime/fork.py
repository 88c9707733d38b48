"""What a child of `os.fork` inherits and must not touch: its parent's sockets, and locks whose holders it has not.

Closing an inherited connection would tell the server to end the parent's session, and a child that lives on would keep
the session of a parent that was killed. So in the child each socket is made to lead nowhere, which the parent's does
not notice, and everything that is remembered here hears of the fork.

A thread that is inside libpq, making a connection, may have a socket there that nobody knows yet. So a fork waits for
such a step to end: that takes microseconds, or as long as a name takes to resolve, but for a second at the most.
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

__all__ = ["FORKED", "connecting", "lead_nowhere", "remember"]

T = TypeVar("T")

_FORK_WAITS_S = 1.0

FORKED = "this store was made before the process was forked: make one of its own in the child"


class _Inherited(Protocol):
    def after_fork(self) -> None:
        """Become what the child may keep; called in the child, before anything else runs there."""


_things: weakref.WeakSet[_Inherited] = weakref.WeakSet()


def remember(thing: _Inherited) -> None:
    """Have `thing.after_fork` called in the children of this process."""
    _things.add(thing)


def lead_nowhere(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Replace this process's copy of a connection's socket."""
    with contextlib.suppress(psycopg.OperationalError):  # it is closed
        _replace(connection.pgconn.socket)


class _Steps:
    """How many threads are inside libpq, making a connection; a fork waits until none is."""

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
        """Wait, and let no thread begin a step."""
        deadline = time.monotonic() + _FORK_WAITS_S
        self._quiet.acquire()
        while self._inside and (left_s := deadline - time.monotonic()) > 0:
            self._quiet.wait(left_s)

    def after_fork_in_parent(self) -> None:
        """Let them go on."""
        self._quiet.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the other threads do not exist here."""
        self._quiet = threading.Condition()
        self._inside = 0


_steps = _Steps()


class _Connecting:
    """The socket of a connection that is being made."""

    def __init__(self) -> None:
        self.descriptor: int | None = None
        remember(self)

    def after_fork(self) -> None:
        if self.descriptor is not None:
            _replace(self.descriptor)


def connecting(steps: PQGenConn[T]) -> PQGenConn[T]:
    """Follow the steps in which psycopg makes a connection; a fork comes between them."""
    following = _Connecting()
    try:
        with _steps:
            waited_for = next(steps)
            following.descriptor = waited_for[0]
        while True:
            ready = yield waited_for
            with _steps:
                waited_for = steps.send(ready)
                following.descriptor = waited_for[0]
    except StopIteration as done:
        made: T = done.value
        return made
    finally:
        following.descriptor = None
        steps.close()


def _replace(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def _tell_all() -> None:
    _steps.after_fork_in_child()
    for thing in list(_things):
        thing.after_fork()


os.register_at_fork(before=_steps.before_fork, after_in_parent=_steps.after_fork_in_parent, after_in_child=_tell_all)
