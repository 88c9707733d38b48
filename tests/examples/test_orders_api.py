"""The FastAPI service runs as its users run it, and a real headless Chromium shows its page."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

import pgdoc
from tests.examples.chromium import PATIENCE_S, free_port, wait_until
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

    from tests.fixtures.fix_server import Server

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
FOLDER = EXAMPLES / "orders_api"
ROWS = "return [...document.querySelectorAll('#unpaid li')].map((row) => row.dataset.id)"


class Service:
    """The service. It can be killed and started again on the same port."""

    def __init__(self, dsn: str, log: Path) -> None:
        self.dsn, self.log, self.port = dsn, log, free_port()
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "uvicorn", "orders_api.app:app", "--app-dir", str(EXAMPLES)]
        command += ["--port", str(self.port), "--timeout-graceful-shutdown", "3"]
        environment = {**os.environ, "PGDOC_DSN": self.dsn, "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_until(self.answers)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end(signal.SIGKILL)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url, timeout=5) as response:  # noqa: S310 (ours)
            return bool(response.status == 200)
        return False

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


class Writer:
    """Writes orders in the background, and keeps what a page should have seen."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.seen = dsn, list[str]()
        self.dice = random.Random(21)
        self.stopped = threading.Event()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, name="writer")
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()

    def run(self) -> None:
        with pgdoc.Store(self.dsn) as store:
            number = 0
            while not self.stopped.wait(0.02):
                number += 1
                self.write(store["orders"], number)

    def write(self, orders: pgdoc.Collection, number: int) -> None:
        data = {"customer": "Ada", "product": "tea", "quantity": 1, "cents": self.dice.randrange(9999), "status": "new"}
        orders.insert(f"o-{number:05}", data)
        self.seen.append(f"insert o-{number:05}")
        changed = f"o-{self.dice.randint(1, number):05}"
        if orders.update_one({"_id": changed, "status": "new"}, {"$set": {"status": "paid"}}) is not None:
            self.seen.append(f"update {changed}")

    def unpaid(self) -> list[str]:
        with pgdoc.Store(self.dsn) as store:
            return [order.id for order in store["orders"].find({"status": "new"}, sort="-cents", limit=20)]


def page_sees(browser: Chrome) -> Any:
    return browser.execute_script("return seen")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_page_loses_nothing_while_the_service_restarts(
    dsn: str, tmp_path: Path, browser: Chrome, how: signal.Signals
) -> None:
    service, writer = Service(dsn, tmp_path / "log"), Writer(dsn)
    with contextlib.ExitStack() as stack:
        stack.enter_context(service)
        browser.get(service.url)
        wait_until(lambda: browser.execute_script("return document.getElementById('state').textContent") == "live")
        with writer.writing():
            wait_until(lambda: len(page_sees(browser)) > 20)
            service.end(how)
            seen = len(page_sees(browser))
            wait_until(lambda: len(writer.seen) > seen + 30)
            stack.enter_context(service)
            wait_until(lambda: len(page_sees(browser)) > seen + 60)
        wait_until(lambda: len(page_sees(browser)) >= len(writer.seen))
        assert page_sees(browser) == writer.seen
        expected = writer.unpaid()
        wait_until(lambda: browser.execute_script(ROWS) == expected)
        browser.get("about:blank")
        assert service.end(signal.SIGTERM) == -signal.SIGTERM


def test_a_page_notices_that_its_connection_is_dead_and_loses_nothing(
    dsn: str, tmp_path: Path, browser: Chrome
) -> None:
    """As after a laptop has slept: the server has given up, and the browser does not know."""
    writer = Writer(dsn)
    with (
        Service(dsn, tmp_path / "log") as service,
        Proxy("127.0.0.1", service.port) as proxy,
        pgdoc.Store(dsn) as store,
    ):
        browser.get(f"http://127.0.0.1:{proxy.port}/")
        wait_until(lambda: browser.execute_script("return document.getElementById('state').textContent") == "live")
        writer.write(store["orders"], 1)
        wait_until(lambda: page_sees(browser) == writer.seen)
        proxy.half_open()
        writer.write(store["orders"], 2)
        browser.execute_script("silentMs = 500")
        wait_until(lambda: page_sees(browser) == writer.seen)
        browser.get("about:blank")
        assert service.end(signal.SIGTERM) == -signal.SIGTERM


class WaitingService(ThreadingHTTPServer):
    """Serves the page, and answers requests for events in turn: as while the database is away, and behind a proxy."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EventRequest)
        self.tokens = list[str | None]()
        with_token = b'retry: 1\n\nevent: heartbeat\nid: t-1\ndata: {"mode": "live"}\n\n'
        without_token = b'retry: 1\n\nevent: heartbeat\ndata: {"mode": "connecting"}\n\n'
        # After an error (None), an EventSource gives up, and the page opens another one.
        self.answers = iter([with_token, None, without_token, None])


class EventRequest(BaseHTTPRequestHandler):
    server: WaitingService

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?after=")
        if path == "/":
            self.answer("text/html", (FOLDER / "page.html").read_bytes())
        elif path == "/events":
            text = next(self.server.answers, None)
            self.server.tokens.append(self.headers["Last-Event-ID"] or query or None)
            self.answer("text/event-stream", text)
        else:
            self.answer("text/event-stream", None)

    def answer(self, media_type: str, text: bytes | None) -> None:
        self.send_response(503 if text is None else 200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(text or b"")))
        self.end_headers()
        self.wfile.write(text or b"")

    def log_message(self, *_args: object) -> None:
        pass


def test_a_page_keeps_its_token_while_heartbeats_have_none(browser: Chrome) -> None:
    """Such heartbeats come from a service that waits for its database."""
    with WaitingService() as service:
        thread = threading.Thread(target=service.serve_forever, name="service")
        thread.start()
        try:
            browser.get(f"http://127.0.0.1:{service.server_address[1]}/")
            wait_until(lambda: len(service.tokens) > 4)
            browser.get("about:blank")
        finally:
            service.shutdown()
            thread.join()
    assert service.tokens[:5] == [None, "t-1", "t-1", "t-1", "t-1"]


def test_the_tests_of_the_example_pass(server: Server, tmp_path: Path) -> None:
    environment = {**os.environ, "PGDOC_TEST_DSN": server.conninfo, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{EXAMPLES}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "_pgdoc_pytestplugin", "-p", "anyio", "-W", "error"]
    command += ["-c", os.devnull, "--rootdir", str(FOLDER), "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_at_most_thirty_lines_connect_fastapi_and_pgdoc() -> None:
    """All of shop.py, with its imports, and what else of app.py is not an endpoint: the middleware and an alias."""
    text = (FOLDER / "shop.py").read_text()
    expressions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    docstrings = {node.lineno for node in expressions if isinstance(node.value, ast.Constant)}
    lines = [line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in docstrings]
    glue = [line for line in lines if line and not line.startswith("#")]
    app = (FOLDER / "app.py").read_text().splitlines()
    glue += [line for line in app if line.startswith(("app.add_middleware", "StoredOrder ="))]
    assert 20 < len(glue) <= 30
