"""A receiver of webhooks for tests: a real HTTP server that does what a test says, and remembers what came."""

from __future__ import annotations

import contextlib
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson
from standardwebhooks import Webhook

from pgdoc import ChangeEvent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
HANG = "hang"
CUT = "cut"
CUT_INSIDE = "cut inside"
DRIP = "drip"
FLOOD = "flood"
DRIP_BODY = "drip body"


class Received(NamedTuple):
    """A request."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> ChangeEvent:
        return ChangeEvent.from_json(self.body)


class Reply(NamedTuple):
    """An answer, or what the receiver does instead: one of the names above."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)
    body: bytes = b"ok"
    act: str = ""


OK = Reply()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # senders are killed, and cut connections
            super().handle_error(request, client_address)


class Receiver:
    """Listens on 127.0.0.1 while the block runs.

    Args:
        rule: returns what becomes of a request; `None` takes all.
        certificate: of TLS, with its key, in one file.
    """

    def __init__(self, rule: Callable[[Received], Reply] | None = None, certificate: Path | None = None) -> None:
        self.rule = rule or (lambda _request: OK)
        self.taken: list[Received] = []  # those that were answered with success, in their order
        self.requests: list[Received] = []
        self.most_side_by_side = 0
        self._side_by_side = 0
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler_class())
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/hooks"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ends.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def ids(self) -> list[str | None]:
        """The ids of the documents whose events were taken, in their order."""
        return [orjson.loads(each.body)["document_id"] for each in self.taken]

    def verify(self, *secrets: str) -> None:
        """Check the signatures of all requests."""
        assert self.requests
        for each in self.requests:
            for secret in secrets or (SECRET,):
                Webhook(secret).verify(each.body, each.headers, json_parse=False)

    def _handler_class(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: C901, N805 (`self` is the request's)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = self.rfile.read(size)
                if len(body) < size:  # the sender was killed inside it
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = receiver._begin(self.command, self.path, headers, body)
                try:
                    reply = receiver.rule(request)
                    if 200 <= reply.status < 300 and reply.act not in (HANG, CUT, DRIP):
                        receiver._take(request)
                    self._answer(reply)
                finally:
                    receiver._end()

            do_OPTIONS = do_POST  # noqa: N815 (http.server names it)

            def _answer(self, reply: Reply) -> None:
                if reply.act in (HANG, CUT):
                    if reply.act == HANG:
                        receiver._ends.wait()
                    self.close_connection = True
                    return
                if reply.act == DRIP:
                    self._drip(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000)
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                size = 1 << 40 if reply.act in (FLOOD, DRIP_BODY, CUT_INSIDE) else len(reply.body)
                self.send_header("content-length", str(size))
                self.end_headers()
                self.wfile.write(reply.body)
                if reply.act == CUT_INSIDE:
                    self.close_connection = True
                elif reply.act == DRIP_BODY:
                    self._drip(b"z" * 10_000)
                elif reply.act == FLOOD:
                    with contextlib.suppress(OSError):
                        while not receiver._ends.is_set():
                            self.wfile.write(b"z" * 65536)
                    self.close_connection = True

            def _drip(self, text: bytes) -> None:
                with contextlib.suppress(OSError):
                    for at in range(len(text)):
                        if receiver._ends.wait(0.05):
                            break
                        self.wfile.write(text[at : at + 1])
                self.close_connection = True

            def log_message(self, *_args: Any) -> None: ...

        return Handler

    def _begin(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Received:
        with self._lock:
            request = Received(len(self.requests), method, path, headers, body)
            self.requests.append(request)
            self._side_by_side += 1
            self.most_side_by_side = max(self.most_side_by_side, self._side_by_side)
            return request

    def _take(self, request: Received) -> None:
        with self._lock:
            self.taken.append(request)

    def _end(self) -> None:
        with self._lock:
            self._side_by_side -= 1


def after(seconds: float, reply: Reply = OK) -> Callable[[Received], Reply]:
    """Return a rule that takes some time, so that requests overlap."""

    def rule(_request: Received) -> Reply:
        time.sleep(seconds)
        return reply

    return rule


def order_of(taken: list[Received]) -> dict[str | None, list[str]]:
    """Return the tokens of each document in the order in which they were first taken.

    A receiver that keeps to `webhook-id` sees this: it knows what comes again.
    """
    found: dict[str | None, list[str]] = {}
    seen: set[str] = set()
    for each in taken:
        if each.headers["webhook-id"] in seen:
            continue
        seen.add(each.headers["webhook-id"])
        values = orjson.loads(each.body)
        found.setdefault(values["document_id"], []).append(values["resume_token"])
    return found
