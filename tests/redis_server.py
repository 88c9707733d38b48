"""Redis servers that tests start: on a port of 127.0.0.1 and a unix socket, with their data in a folder."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import redis

from tests.engines import START_TIMEOUT_S, EngineServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class RedisServer(EngineServer):
    """A redis-server with an append-only file that is on disk before a write is answered.

    Args:
        folder: keeps its data, also between two starts.
        config: lines of its configuration file, which replace the ones before.
    """

    def __init__(self, folder: Path, config: str = "") -> None:
        super().__init__(folder, config)

    @property
    def url(self) -> str:
        """Its URL, without a log."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        """Its unix socket."""
        return self.folder / "socket"

    def client(self, **options: Any) -> redis.Redis:
        """Return a client, to be closed."""
        return redis.Redis("127.0.0.1", self.port, **options)

    def ask(self, *command: str) -> Any:
        """Run a command."""
        with self.client() as client:
            return client.execute_command(*command)

    def start(self) -> None:
        """Start it, and wait until it has loaded its data."""
        program = find_redis()
        assert program is not None, "the test needs Redis: install the package redis-server"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "redis.conf"
        settings.write_text(
            f'bind 127.0.0.1\nport {self.port}\ndir "{self.folder}"\nunixsocket "{self.socket}"\nsave ""\n'
            "appendonly yes\nappendfsync always\nrepl-diskless-sync-delay 0\nenable-protected-configs yes\n"
            f"{self.config}\n"
        )
        self._run(program, str(settings))
        self.wait_until(self._is_loaded)

    def _is_loaded(self) -> bool:
        try:
            self.ask("PING")
        except redis.BusyLoadingError:
            return False
        except redis.AuthenticationError:
            return True
        return True

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def entries(self, name: str) -> list[tuple[int, dict[str, str], bytes]]:
        """Return the entries of a log: sequence, fields and body."""
        found = []
        with self.client() as client:
            for key in client.scan_iter(f"{{{name}}}:*", count=1000):
                if client.type(key) == b"stream":
                    found += [_entry(raw, key) for raw in client.xrange(key)]
        return sorted(found, key=lambda entry: entry[0])


def _entry(raw: tuple[bytes, dict[bytes, bytes]], key: bytes) -> tuple[int, dict[str, str], bytes]:
    fields = {name.decode(): value for name, value in raw[1].items()}
    body = fields.pop("body")
    stream = key.decode().rpartition(":")[2]
    return int(raw[0].partition(b"-")[0]), {"stream": stream} | {k: v.decode() for k, v in fields.items()}, body


def find_redis() -> str | None:
    """Return the path of redis-server, if this machine has it."""
    return shutil.which("redis-server", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin")))
