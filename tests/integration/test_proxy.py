"""`tests/proxy.py` causes the network faults that it documents."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 30.0
SILENCE_S = 0.1


class Echo:
    """An echo server; `sessions` is the number of connections that it considers open."""

    def __init__(self) -> None:
        self.sessions = 0
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._run)]
        self.threads[0].start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def wait_for(self, sessions: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.sessions == sessions, PATIENCE_S), self.sessions

    def _run(self) -> None:
        while True:
            try:
                session, _ = self.listener.accept()
            except OSError:
                return
            self._count(1)
            thread = threading.Thread(target=self._serve, args=(session,))
            self.threads.append(thread)
            thread.start()

    def _serve(self, session: socket.socket) -> None:
        with session:
            try:
                while chunk := session.recv(65536):
                    session.sendall(chunk)
            except OSError:
                pass  # reset
        self._count(-1)

    def _count(self, step: int) -> None:
        with self.changed:
            self.sessions += step
            self.changed.notify_all()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo.port) as proxy:
        yield proxy
    assert not [thread for thread in threading.enumerate() if thread.name == "tests-proxy"]


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=PATIENCE_S)


def _ask(client: socket.socket, text: bytes) -> None:
    client.sendall(text)
    got = b""
    while len(got) < len(text):
        chunk = client.recv(65536)
        assert chunk
        got += chunk
    assert got == text


def _hears_nothing(client: socket.socket) -> None:
    client.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(PATIENCE_S)


def test_the_proxy_forwards_more_than_its_buffer_holds(proxy: Proxy, echo: Echo) -> None:
    with _connect(proxy) as client:
        text = bytes(range(256)) * 40_000
        sending = threading.Thread(target=client.sendall, args=(text,))
        sending.start()
        got = bytearray()
        while len(got) < len(text):
            got += client.recv(1 << 20)
        sending.join(PATIENCE_S)
        assert got == text
        assert proxy.connections == 1
    echo.wait_for(0)


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_closes_both_sides(proxy: Proxy, echo: Echo, reset: bool) -> None:
    with _connect(proxy) as client:
        _ask(client, b"one")
        proxy.cut(reset=reset)
        if reset:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        else:
            assert client.recv(1) == b""
        echo.wait_for(0)
    with _connect(proxy) as again:
        _ask(again, b"two")


def test_a_stall_keeps_connections_open_and_loses_nothing(proxy: Proxy, echo: Echo) -> None:
    with _connect(proxy) as client:
        _ask(client, b"one")
        proxy.stall()
        client.sendall(b"two")
        with _connect(proxy) as late:
            late.sendall(b"three")
            _hears_nothing(late)
            _hears_nothing(client)
            echo.wait_for(1)
            proxy.resume()
            assert client.recv(3) == b"two"
            assert late.recv(5) == b"three"


def test_half_open_closes_the_server_side_only(proxy: Proxy, echo: Echo) -> None:
    with _connect(proxy) as client:
        _ask(client, b"one")
        proxy.half_open()
        echo.wait_for(0)
        client.sendall(b"two")
        _hears_nothing(client)
        with _connect(proxy) as other:
            _ask(other, b"three")


def test_vanish_closes_the_client_side_only(proxy: Proxy, echo: Echo) -> None:
    with _connect(proxy) as client:
        _ask(client, b"one")
        proxy.vanish()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with _connect(proxy) as other:
        _ask(other, b"two")
        echo.wait_for(2)


def test_refuse_rejects_only_new_connections(proxy: Proxy, echo: Echo) -> None:
    with _connect(proxy) as client:
        _ask(client, b"one")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            _connect(proxy)
        _ask(client, b"two")
        proxy.accept()
        with _connect(proxy) as again:
            _ask(again, b"three")


def test_a_client_is_disconnected_if_the_server_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy, pytest.raises(ConnectionResetError), _connect(proxy) as client:
        client.recv(1)
