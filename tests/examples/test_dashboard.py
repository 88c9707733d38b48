"""The dashboard runs in its own process, and a real headless Chromium shows it."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

import pgdoc
from tests.examples.chromium import PATIENCE_S, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

    from pgdoc.server import LocalServer

PROGRAM = Path(__file__).parents[2] / "docs" / "examples" / "dashboard" / "app.py"
STATUSES = ["new", "paid", "shipped", "delivered"]
FIGURES = """
const read = (id) => document.getElementById(id).textContent;
const number = (id) => Number(read(id).replaceAll(",", ""));
const statuses = Object.fromEntries([...state.statuses].filter(([, count]) => count));
return {orders: number("orders"), revenue: number("revenue"), changes: number("changes"), statuses};
"""
TABLE = """
SELECT count(*)::int, coalesce(sum((data ->> 'total')::numeric), 0)::float8 FROM docs.orders
"""
SLOTS = """
SELECT count(*)::int FROM pg_replication_slots
 WHERE database = current_database() AND active AND slot_name NOT LIKE 'pgdocb\\_%'
"""
BY_STATUS = "SELECT data ->> 'status', count(*)::int FROM docs.orders GROUP BY 1"


class App:
    """The program. It can be killed and started again on the same port."""

    def __init__(self, conninfo: str, log: Path) -> None:
        self.conninfo, self.log, self.port = conninfo, log, free_port()
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.end(signal.SIGKILL)

    def start(self) -> Self:
        with self.log.open("ab") as log:
            command = [sys.executable, str(PROGRAM), self.conninfo, "--port", str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.answers)
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(self.url, timeout=5) as response:  # noqa: S310 (ours)
            return bool(response.status == 200)
        return False

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)


class Writer:
    """Writes orders through pgdoc and in SQL, and counts the changes."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo, self.changes, self.numbers = conninfo, 0, itertools.count(1)
        self.dice = random.Random(6)
        self.stopped = threading.Event()

    def write(self, rounds: int) -> None:
        with pgdoc.Store(self.conninfo) as store, psycopg.connect(self.conninfo, autocommit=True) as sql:
            for _ in range(rounds):
                self.write_some(store["orders"], sql)

    def write_some(self, orders: pgdoc.Collection, sql: psycopg.Connection) -> None:
        number = next(self.numbers)
        total = self.dice.randrange(1, 1_000_000) / 100
        orders.insert(f"o-{number:05}", {"customer": "Ada", "total": total, "status": "new"})
        data = json.dumps({"customer": "Bob <b>", "total": total + 1, "status": "new"})
        sql.execute("INSERT INTO docs.orders (id, data) VALUES (%s, %s)", [f"s-{number:05}", data])
        changed: Any = orders.update_many({"status": "new"}, {"$set": {"status": self.dice.choice(STATUSES[1:])}})
        text = "UPDATE docs.orders SET data = data || '{\"total\": 5.5}' WHERE id = %s"
        moved = sql.execute(text, [f"s-{self.dice.randint(1, number):05}"])
        deleted = orders.delete(f"o-{self.dice.randint(1, number):05}")
        self.changes += 2 + changed + moved.rowcount + deleted

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Write in the background until the block ends."""
        thread = threading.Thread(target=self.go_on, name="writer")
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()

    def go_on(self) -> None:
        with pgdoc.Store(self.conninfo) as store, psycopg.connect(self.conninfo, autocommit=True) as sql:
            while not self.stopped.wait(0.02):
                self.write_some(store["orders"], sql)


class Page:
    """What a user sees of the page."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, app: App) -> Page:
        self.browser.get(app.url)
        wait_until(lambda: self.mode == "Live")
        return self

    @property
    def mode(self) -> Any:
        return self.browser.execute_script("return document.getElementById('state').textContent")

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = self.browser.execute_script(FIGURES)
        return figures

    def equals_the_table(self, conninfo: str, changes: int | None = None) -> None:
        """Wait until all figures equal the table's and the page has counted `changes` changes."""
        with psycopg.connect(conninfo) as connection:
            orders, revenue = connection.execute(TABLE).fetchone() or (0, 0)
            statuses: dict[str, int] = dict(connection.execute(BY_STATUS).fetchall())
        wanted = {"orders": orders, "revenue": pytest.approx(revenue, abs=0.001), "statuses": statuses}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            figures = self.figures
            count = figures.pop("changes")
            if figures == wanted and (changes is None or count == changes):
                return
            if time.monotonic() > deadline:
                assert figures == wanted
                assert count == changes
            time.sleep(0.1)


@pytest.fixture
def page(browser: Chrome) -> Iterator[Page]:
    """A page that is closed after the test, which fails if its script logged an error."""
    browser.get("about:blank")
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    yield Page(browser)
    browser.get("about:blank")
    messages = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert not [message for message in messages if "net::ERR" not in message]


@pytest.fixture
def app(dsn: str, tmp_path: Path) -> Iterator[App]:
    with App(dsn, tmp_path / "app.log") as app:
        yield app
        app.end(signal.SIGTERM)  # `dsn` checks that its slots and sessions are gone


def shoot(page: Page, tmp_path: Path, name: str, scheme: str = "light") -> None:
    """Save a screenshot."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    time.sleep(0.3)
    assert page.browser.save_screenshot(str(tmp_path / f"{name}.png"))


def test_the_page_equals_the_table(app, dsn, page, tmp_path):
    """Opened before the first order and again later, the page counts existing orders and each change."""
    page.open(app)
    shoot(page, tmp_path, "empty")
    writer = Writer(dsn)
    writer.write(30)
    page.equals_the_table(dsn, writer.changes)
    shoot(page, tmp_path, "light")
    shoot(page, tmp_path, "dark", "dark")
    page.open(app)
    page.equals_the_table(dsn, changes=0)
    before = writer.changes
    writer.write(5)
    page.equals_the_table(dsn, writer.changes - before)
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute("TRUNCATE docs.orders")
    page.equals_the_table(dsn)


def test_orders_that_make_no_sense_do_no_harm(app, dsn, page):
    page.open(app)
    with psycopg.connect(dsn, autocommit=True) as sql:
        for data in ('{"total": "x", "status": [1]}', '{"total": 1e400}', f'{{"total": {"9" * 4000}}}', "{}"):
            sql.execute("INSERT INTO docs.orders (id, data) VALUES (%s, %s)", [pgdoc.new_id(), data])
        sql.execute('UPDATE docs.orders SET data = \'{"total": 2.25, "status": "new"}\'')
    page.equals_the_table(dsn, changes=8)
    assert page.figures["revenue"] == 9


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_application_restarts_while_orders_go_on(app, dsn, page, tmp_path, how):
    page.open(app)
    writer = Writer(dsn)
    with writer.writing():
        wait_until(lambda: page.figures["changes"] > 20)
        app.end(how)
        wait_until(lambda: page.mode == "Reconnecting")
        shoot(page, tmp_path, "reconnecting")
        seen = page.figures["changes"]
        wait_until(lambda: writer.changes > seen + 50)
        app.start()
        wait_until(lambda: page.figures["changes"] > seen + 50)
    page.equals_the_table(dsn, writer.changes)
    assert page.mode == "Live"


def test_postgresql_restarts(private_server: LocalServer, private_dsn: str, page, tmp_path):
    with App(private_dsn, tmp_path / "app.log") as app:
        page.open(app)
        writer = Writer(private_dsn)
        writer.write(5)
        page.equals_the_table(private_dsn, writer.changes)
        with private_server.stopped():
            wait_until(lambda: page.mode == "Waiting for the database")
        wait_until(lambda: page.mode == "Live")
        writer.write(5)
        page.equals_the_table(private_dsn, writer.changes)
        app.end(signal.SIGTERM)


def test_a_place_that_is_no_longer_kept(app, dsn, page):
    """The page clears its figures and loads a snapshot."""
    page.open(app)
    writer = Writer(dsn)
    writer.write(5)
    page.equals_the_table(dsn, writer.changes)
    page.browser.execute_script("connect('0/1.0/1.0.0.0.1')")
    writer.write(5)
    page.equals_the_table(dsn)


def connect(app: App) -> socket.socket:
    """Request the events as a browser that reads only when told to."""
    browser = socket.socket()
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    browser.settimeout(PATIENCE_S)
    browser.connect(("127.0.0.1", app.port))
    browser.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert browser.recv(512).startswith(b"HTTP/1.1 200")
    return browser


def test_a_slow_browser_slows_nobody_and_leaves_nothing(app, dsn, page):
    """Browsers that do not read delay neither other browsers nor the shutdown."""
    page.open(app)
    with contextlib.ExitStack() as slow, psycopg.connect(dsn, autocommit=True) as sql:
        browsers = [slow.enter_context(connect(app)) for _ in range(3)]
        text = """
            INSERT INTO docs.orders (id, data)
            SELECT 'o-' || n, '{"total": 1, "status": "new", "customer": "a name of some length, as they are"}'
              FROM generate_series(%s::int, %s::int) n
        """
        for begin in range(0, 30_000, 10_000):
            sql.execute(text, [begin, begin + 9_999])
        page.equals_the_table(dsn, changes=30_000)
        for browser in browsers[1:]:
            browser.close()
        page.browser.get("about:blank")
        assert count(browsers[0], 30_000) == 30_000
        browsers[0].close()
        wait_until(lambda: sql.execute(SLOTS).fetchone() in {(0,), (1,)})  # 1: the store's own slot, which all share
        sql.execute("DELETE FROM docs.orders WHERE id = 'o-1'")
    page.open(app)
    page.equals_the_table(dsn, changes=0)


def count(browser: socket.socket, wanted: int) -> int:
    """Read until `wanted` changes have arrived, and return their number."""
    found, tail = 0, b""
    while found < wanted:
        data = tail + browser.recv(1 << 16)
        found += data.count(b"event: change\n")
        tail = data[-13:]
        found -= tail.count(b"event: change\n")
    return found
