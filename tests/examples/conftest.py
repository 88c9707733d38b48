"""The programs of docs/examples as processes of their own, and a private Redis beside them."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 30.0
TEST_TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    """A program that is broken may wait for ever."""

    def give_up(*_args: object) -> None:
        raise TimeoutError(f"not done within {TEST_TIMEOUT_S} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_TIMEOUT_S)
    yield
    signal.alarm(0)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis that keeps nothing on disk and listens on a socket in a folder of its own."""
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
    """A client of it; it is empty."""
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
                assert process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.05)
            else:
                return
