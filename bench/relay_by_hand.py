"""What `bench.relay` needs of JetStream by hand: a log's messages as frames, and the times at which messages arrive."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from nats.aio.client import Client


class Windows(NamedTuple):
    """Frames to write, window by window, and where to."""

    address: tuple[str, int]
    frames: list[bytes]


def frames_of(url: str, events: int, window: int) -> Windows:
    """Create a stream, and return what makes it equal to the one that the relay has written."""
    return asyncio.run(_frames_of(url, events, window))


async def _frames_of(url: str, events: int, window: int) -> Windows:
    parts = urlsplit(url)
    name = parts.path.strip("/")
    hosts = parts.netloc.split(",")
    client = await nats.connect([f"nats://{host}" for host in hosts])
    context = client.jetstream(timeout=20)
    config = (await context.stream_info(name)).config
    await context.add_stream(config.evolve(name=f"{name}_hand", subjects=[f"{name}_hand.>"]))
    consumer = ConsumerConfig(ack_policy=AckPolicy.NONE)
    pull = await context.pull_subscribe("", stream=name, durable=None, config=consumer)
    frames, window_frames, count = [], [], 0
    while count < events:
        for message in await pull.fetch(1000, timeout=20):
            count += 1
            reply = b"hand.ack " if count % window == 0 or count == events else b""
            headers = "".join(f"{key}: {value}\r\n" for key, value in (message.headers or {}).items()).encode()
            head = b"NATS/1.0\r\n" + headers + b"\r\n"
            subject = message.subject.replace(name, f"{name}_hand", 1).encode()
            size = len(head)
            window_frames.append(
                b"HPUB %b %b%d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(message.data), head, message.data)
            )
            if reply:
                frames.append(b"".join(window_frames))
                window_frames = []
    await client.close()
    host, _, port = hosts[0].rpartition(":")
    return Windows((host, int(port)), frames)


def send(connection: socket.socket, windows: Windows, in_flight: int) -> None:
    """Write the windows, with so many unacknowledged at most."""
    connection.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB hand.ack 1\r\nPING\r\n')
    received = b""
    while b"PONG" not in received:
        received = connection.recv(65536)
    acknowledged = sent = 0
    for frames in windows.frames:
        while sent - acknowledged >= in_flight:
            acknowledged += connection.recv(65536).count(b"MSG hand.ack")
        connection.sendall(frames)
        sent += 1
    while acknowledged < sent:
        acknowledged += connection.recv(65536).count(b"MSG hand.ack")


@contextlib.contextmanager
def arrivals(url: str) -> Iterator[list[float]]:
    """Yield a list to which a consumer of the stream adds the time of each new message."""
    found: list[float] = []
    ready, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_follow(url, found, ready, over)), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield found
    finally:
        over.set()
        thread.join()


async def _follow(url: str, found: list[float], ready: threading.Event, over: threading.Event) -> None:
    parts = urlsplit(url)
    client: Client = await nats.connect([f"nats://{host}" for host in parts.netloc.split(",")])
    name = parts.path.strip("/")

    async def note(_message: object) -> None:
        found.append(time.perf_counter())

    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.NEW)
    await client.jetstream(timeout=20).subscribe(f"{name}.>", stream=name, cb=note, config=config)
    ready.set()
    await asyncio.to_thread(over.wait)
    await client.close()
