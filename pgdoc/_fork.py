"""What a child of `os.fork` inherits and must not touch: its parent's sockets, and locks whose holders it has not.

Closing an inherited connection would tell the server to end the parent's session, and a child that lives on would keep
the session of a parent that was killed. So in the child each socket is made to lead nowhere, which the parent's does
not notice, and everything that is remembered here hears of the fork.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Protocol, TypeVar

import psycopg

if TYPE_CHECKING:
    from typing import Any

    from psycopg.abc import PQGenConn

__all__ = ["FORKED", "connecting", "lead_nowhere", "remember"]

T = TypeVar("T")

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


class _Connecting:
    """The socket of a connection that is being made."""

    def __init__(self) -> None:
        self.descriptor: int | None = None
        remember(self)

    def after_fork(self) -> None:
        if self.descriptor is not None:
            _replace(self.descriptor)


def connecting(steps: PQGenConn[T]) -> PQGenConn[T]:
    """Follow the steps in which psycopg makes a connection; a fork can only come between them."""
    following = _Connecting()
    try:
        waited_for = next(steps)
        while True:
            following.descriptor = waited_for[0]
            waited_for = steps.send((yield waited_for))
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
    for thing in list(_things):
        thing.after_fork()


os.register_at_fork(after_in_child=_tell_all)
