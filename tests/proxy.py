"""`Proxy`: a TCP proxy that simulates network failures.

One thread forwards the bytes. Calls that break something run on that thread and return when they are done, so that the
failure happens before the next statement of the test. The listening port never changes.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 1 << 16
_LIMIT = 1 << 18  # bytes buffered in one direction; small, so that a slow reader blocks the writer
_PATIENCE_S = 30.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with timeout 0: close() sends RST


@dataclass(eq=False)
class _End:
    """One side of a connection, and the bytes still to be written to it."""

    socket: socket.socket
    is_client: bool
    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False  # its peer has sent end of file
    other: _End | None = None
    is_answered: bool = True  # of a client: whether the server has sent something since the client did


class Proxy:
    """A context manager that forwards connections to `host:port`.

    Clients connect to `port` on 127.0.0.1. After `half_open` and `vanish` the proxy neither reads nor answers the
    sockets it keeps open, until `cut` or the end of the context closes them.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.round_trips = 0  # how often a client sent something after an answer
        self._target = (host, port)
        self._selector = selectors.DefaultSelector()
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._wake_here, self._wake_there = socket.socketpair()
        self._listener: socket.socket | None = None
        self._ends: dict[socket.socket, _End] = {}
        self._unserved: list[socket.socket] = []  # accepted while stalled
        self._silent: list[socket.socket] = []
        self._stalled = self._over = False
        self._thread = threading.Thread(target=self._run, name="tests-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._wake_there.setblocking(False)
        self._selector.register(self._wake_there, selectors.EVENT_READ)
        self._listen()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._do(self._end)
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive(), f"the proxy's thread has not ended after {_PATIENCE_S:.0f} s"
        self._selector.close()
        self._wake_here.close()
        self._wake_there.close()

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._ends) // 2

    def cut(self, *, reset: bool = True) -> None:
        """Close all connections on both sides, including silent ones, with RST, or with FIN if `reset` is false."""
        self._do(lambda: self._cut(reset=reset))

    def stall(self) -> None:
        """Stop forwarding; connections stay open, and new ones get no answer."""
        self._do(lambda: self._set_stalled(stalled=True))

    def resume(self) -> None:
        """Forward again after `stall`; nothing sent in the meantime is lost."""
        self._do(lambda: self._set_stalled(stalled=False))

    def half_open(self) -> None:
        """Close the server side of all connections; the clients are not notified."""
        self._do(lambda: self._silence(clients=True))

    def vanish(self) -> None:
        """Close the client side of all connections; the server is not notified."""
        self._do(lambda: self._silence(clients=False))

    def refuse(self) -> None:
        """Refuse new connections; open ones keep working."""
        self._do(self._close_listener)

    def accept(self) -> None:
        """Accept new connections again after `refuse`."""
        self._do(self._listen)

    # Everything below runs on the proxy's thread, except _do. That thread owns all fields but `_calls` and
    # `_wake_here`.

    def _do(self, call: Callable[[], None]) -> None:
        done = threading.Event()
        self._calls.put((call, done))
        self._wake_here.send(b"x")
        assert done.wait(_PATIENCE_S), f"the proxy's thread has not answered within {_PATIENCE_S:.0f} s"

    def _run(self) -> None:
        while not self._over:
            for key, mask in self._selector.select():
                if key.fileobj is self._wake_there:
                    self._run_calls()
                elif key.fileobj is self._listener:
                    self._take_client()
                elif (end := self._ends.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                    self._move(end, mask)

    def _run_calls(self) -> None:
        self._wake_there.recv(1)
        call, done = self._calls.get()
        try:
            call()
        finally:
            done.set()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=128)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _take_client(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # the client has already disconnected
        if self._stalled:
            self._unserved.append(client)
        else:
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=_PATIENCE_S)
        except OSError:
            _close(client, reset=True)
            return
        client_end, server_end = _End(client, is_client=True), _End(server, is_client=False)
        client_end.other, server_end.other = server_end, client_end
        for end in (client_end, server_end):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket] = end
            self._watch(end)

    def _watch(self, end: _End) -> None:
        """Register the events to wait for: none while stalled."""
        assert end.other is not None
        wanted = 0
        if not self._stalled:
            wanted |= selectors.EVENT_READ if not end.ended and len(end.other.waiting) < _LIMIT else 0
            wanted |= selectors.EVENT_WRITE if end.waiting else 0
        known = end.socket in self._selector.get_map()
        if known and not wanted:
            self._selector.unregister(end.socket)
        elif known:
            self._selector.modify(end.socket, wanted)
        elif wanted:
            self._selector.register(end.socket, wanted)

    def _move(self, end: _End, mask: int) -> None:
        assert end.other is not None
        try:
            if mask & selectors.EVENT_WRITE:
                del end.waiting[: end.socket.send(end.waiting)]
            if mask & selectors.EVENT_READ:
                chunk = end.socket.recv(_CHUNK)
                end.other.waiting += chunk
                self._count(end)
                end.ended = not chunk
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._drop(end, reset=True)
            return
        if (end.ended and not end.other.waiting) or (end.other.ended and not end.waiting):
            self._drop(end, reset=False)
        else:
            self._watch(end)
            self._watch(end.other)

    def _count(self, end: _End) -> None:
        if not end.is_client:
            assert end.other is not None
            end.other.is_answered = True
        elif end.is_answered:
            self.round_trips += 1
            end.is_answered = False

    def _forget(self, end: _End) -> None:
        if end.socket in self._selector.get_map():
            self._selector.unregister(end.socket)
        self._ends.pop(end.socket, None)

    def _drop(self, end: _End, *, reset: bool) -> None:
        for one in (end, end.other):
            assert one is not None
            self._forget(one)
            _close(one.socket, reset=reset)

    def _cut(self, *, reset: bool) -> None:
        for end in list(self._ends.values()):
            if end.socket in self._ends:
                self._drop(end, reset=reset)
        for left in (self._unserved, self._silent):
            while left:
                _close(left.pop(), reset=reset)

    def _silence(self, *, clients: bool) -> None:
        for end in list(self._ends.values()):
            self._forget(end)
            if end.is_client is clients:
                self._silent.append(end.socket)
            else:
                _close(end.socket, reset=True)

    def _set_stalled(self, *, stalled: bool) -> None:
        self._stalled = stalled
        for end in self._ends.values():
            self._watch(end)
        while not stalled and self._unserved:
            self._serve(self._unserved.pop())

    def _end(self) -> None:
        self._over = True
        self._close_listener()
        self._cut(reset=True)


def _close(one: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.close()
