"""Fixtures for the programs of docs/examples: a time limit for each test, and a private Redis."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotThereYetError

from tests.examples.chromium import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

START_TIMEOUT_S = 30.0
TEST_TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    """Fail a test that takes too long: a broken program may wait forever."""

    def give_up(*_args: object) -> None:
        raise TimeoutError(f"the test did not finish within {TEST_TIMEOUT_S} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_TIMEOUT_S)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis that stores nothing on disk and listens on a socket in its own folder."""
    with TemporaryDirectory(prefix="pgdoc-redis-") as folder:
        socket = Path(folder, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "", "--appendonly", "no"]
        with subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL) as process:
            try:
                _wait_for(socket, process)
                yield f"unix://{socket}"
            finally:
                process.kill()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        redis.flushall()
        yield redis


def _wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with Redis.from_url(f"unix://{socket}") as redis:
        while True:
            try:
                redis.ping()
            except NotThereYetError:
                assert process.poll() is None, f"redis-server ended with {process.returncode}"
                assert time.monotonic() < deadline, f"redis-server does not answer after {START_TIMEOUT_S} s"
                time.sleep(0.05)
            else:
                return
