"""The HTTP server of metrics, and clients that mean it no good."""

from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Gauge

from pgdoc.telemetry import http
from pgdoc.telemetry.http import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    monkeypatch.setattr(http, "_MOST_REQUESTS", MOST)
    registry = CollectorRegistry()
    Gauge("answer", "what is asked for", registry=registry).set(42)
    with MetricsServer("127.0.0.1", 0, registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_clients_that_never_finish_their_request_keep_nobody_out(server: MetricsServer) -> None:
    with ExitStack() as stack:
        for _ in range(MOST * 3):
            client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.server_port))))
            client.sendall(b"GET /metrics HTTP/1.1\r\nAccept: ")
        for _ in range(MOST * 2):
            with urllib.request.urlopen(server.url, timeout=30) as answer:  # noqa: S310 (of this test)
                assert b"answer 42.0" in answer.read()


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"X" * 70_000,
        b"\r\n",
    ],
)
def test_what_is_no_request_ends_its_own_connection(
    server: MetricsServer, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.server_port), timeout=30)) as client:
        client.sendall(head)
        client.shutdown(socket.SHUT_WR)
        try:
            while client.recv(4096):
                pass
        except ConnectionResetError:
            pass
    with urllib.request.urlopen(server.url, timeout=30) as answer:  # noqa: S310 (of this test)
        assert answer.status == 200
    assert not caplog.records
