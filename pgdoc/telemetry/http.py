"""A small HTTP server for Prometheus, bounded in time and number: who asks slowly holds up nobody else."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["MetricsServer"]

logger = logging.getLogger("pgdoc.metrics")

_MOST_REQUESTS: Final = 32
_CLIENT_S: Final = 10.0
_END_S: Final = 1.0


class MetricsServer(ThreadingHTTPServer):
    """Serves the metrics of a registry at `/metrics`, from when it is made until `server_close`.

    Attributes:
        url: where Prometheus finds them.
    """

    daemon_threads = True  # a client that does not read must not delay the end of the program

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._free = threading.BoundedSemaphore(_MOST_REQUESTS)
        self._asking: dict[Any, None] = {}  # the connections whose requests are not complete, the oldest first
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, _, _, _, address = found[0]
            super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        except OSError as exc:
            text = f"can't listen on {host}, port {port}: {exc.strerror or exc}; choose another port or host"
            raise OSError(exc.errno, text) from exc
        shown = f"[{address[0]}]" if self.address_family == socket.AF_INET6 else address[0]
        self.url = f"http://{shown}:{self.server_port}/metrics"

    def server_bind(self) -> None:
        """Listen, without looking up the name of this host, which can take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; if too many are at work, at the cost of the one that asks the slowest."""
        if not self._free.acquire(blocking=False) and not (self._end_slowest() and self._free.acquire(timeout=_END_S)):
            self.shutdown_request(request)
            return
        self._asking[request] = None
        try:
            super().process_request(request, client_address)
        except BaseException:  # the thread was not started
            self.note_asked(request)
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.note_asked(request)
            self._free.release()

    def note_asked(self, request: Any) -> None:
        """Note that a client has sent its whole request, or has gone."""
        self._asking.pop(request, None)

    def _end_slowest(self) -> bool:
        """End the connection that has been asking for the longest; return whether there was one."""
        for request in self._asking.copy():
            self.note_asked(request)
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            return True
        return False

    def handle_error(self, *_arguments: Any) -> None:
        """Log a bug; a client that has gone, or is too slow, is none."""
        exc = sys.exception()
        if not isinstance(exc, OSError):
            logger.error("a scrape could not be answered", exc_info=exc)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = _CLIENT_S

    def do_GET(self) -> None:
        """Answer with the metrics, in the format that the client prefers."""
        self.server.note_asked(self.connection)
        try:
            path = urlsplit(self.path).path
        except ValueError:  # the client's fault, so nothing to log
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if path not in {"/", "/metrics"}:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Log no requests."""
