"""Writes a log into JetStream: exactly once, whatever fails.

Each message has the sequence that the stream must end with before it, in `Nats-Expected-Last-Sequence`. The server
checks that for every message, so the stream is a prefix of what the relay sends, and a second relay only competes to
write the same next message. Only the last message of a window asks for an acknowledgement.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, LogFull, LogRefused, LogUnreachable
from pgdoc.relay.durations import seconds_of
from pgdoc.relay.nats.connection import CONNECTION_OPTIONS, NatsConnection, mapped
from pgdoc.relay.nats.stream import HEADER_ROOM, NatsStream
from pgdoc.relay.partitions import encoded

if TYPE_CHECKING:
    from pgdoc.relay.config import LogConfig
    from pgdoc.relay.log import LogEnd
    from pgdoc.relay.messages import Message, Window
    from pgdoc.relay.targets import Target

__all__ = ["NatsWriter"]

_OPTIONS: Final = CONNECTION_OPTIONS | {
    "replicas", "max_age", "max_bytes", "when_full", "subjects", "sync_interval", "ack_wait",
}  # fmt: skip
_SYNC_INTERVAL_S: Final = 120.0  # the server's default
_ACK_S: Final = 10.0
_WRONG_SEQUENCE: Final = 10071
_FULL: Final = {10023, 10047, 10077, 10122}
"""Insufficient resources, storage exceeded, maximum bytes or messages exceeded."""
_TOO_LARGE: Final = 10054
_LONGEST_HEADER_ID: Final = 512


@lru_cache(maxsize=1024)
def _collection_header(collection: str) -> bytes:
    return f"Pgdoc-Collection: {encoded(collection)}\r\n".encode()


class NatsWriter:
    """See `LogWriter`."""

    def __init__(self, target: Target) -> None:
        target.check_options(_OPTIONS)
        self._connection = NatsConnection(target)
        self._stream = NatsStream(target, self._connection)
        self._ack_s = seconds_of(target, "ack_wait") or _ACK_S
        sync_s = seconds_of(target, "sync_interval")
        self.confirm_after_s = _SYNC_INTERVAL_S if sync_s is None else sync_s
        self.limit = 0
        self._sequence = self._opened_at = -1  # of the last message that was sent, and where the stream last ended
        self._is_stuck = False
        self._turn = asyncio.Lock()  # of windows, which are written one after the other

    async def open(self, config: LogConfig) -> LogEnd:
        """See `LogWriter`."""
        await self._connection.open()
        stream = self._stream
        info = await stream.find()
        room = self._max_payload - HEADER_ROOM
        if info is None:
            info = await stream.create(config.of_engine(limit=room, layout=stream.layout))
        found = stream.config_of(info)
        config.of_engine(limit=found.limit, layout=stream.layout).check(found, stream.shown)
        stream.check(info)
        if found.limit > room:
            raise LogRefused(
                f"{stream.shown} has messages of up to {found.limit + HEADER_ROOM:,} bytes, and the server takes only "
                f"{self._max_payload:,}: raise its max_payload",
                reason="config",
            )
        self.limit = found.limit
        end = await stream.end(info)
        self._is_stuck = end.sequence == self._opened_at
        self._sequence = self._opened_at = end.sequence
        self._turn = asyncio.Lock()
        return end

    @property
    def _max_payload(self) -> int:
        client = self._connection.client
        size = 0 if client is None else client.max_payload
        if size <= 2 * HEADER_ROOM:
            raise InvalidInput(
                f"{self._stream.shown}: the server's max_payload is {size:,}: it must be at least 32 KiB"
            )
        return size

    async def send(self, window: Window) -> int:
        """See `LogWriter`."""
        base = self._sequence
        last = self._sequence = base + len(window)
        async with self._turn:
            if self._is_stuck:  # only the first message that is refused gets the real error, such as "full"
                await self._acknowledged(self._write(window[:1], base), base + 1)
                self._is_stuck = False
                window, base = window[1:], base + 1
            acknowledgement = self._write(window, base) if window else None
        if acknowledgement is not None:
            await self._acknowledged(acknowledgement, last)
        return last

    def _write(self, window: Window, base: int) -> asyncio.Future[bytes]:
        """Write the messages; the future has the server's answer to the last."""
        frames = [self._frame(message, base + number) for number, message in enumerate(window[:-1])]
        reply, answer = self._connection.expect()
        frames.append(self._frame(window[-1], base + len(window) - 1, reply))
        self._connection.write(b"".join(frames))
        return answer

    async def _acknowledged(self, answer: asyncio.Future[bytes], sequence: int) -> None:
        """Wait until the server has stored a message, and all before it."""
        with mapped(self._stream.shown):
            text = await asyncio.wait_for(answer, self._ack_s)
        if not text:
            raise LogUnreachable(f"{self._stream.shown} does not answer: it may have no leader now")
        self._check(json.loads(text), sequence)

    def _check(self, answer: dict[str, Any], sequence: int) -> None:
        error = answer.get("error")
        if error is None:
            if answer.get("seq") != sequence:
                raise LogUnreachable(
                    f"{self._stream.shown} acknowledged {answer.get('seq')} instead of {sequence}: another relay writes"
                )
            return
        text, code = (
            f"{self._stream.shown}: {error.get('description')} (error {error.get('err_code')})",
            error.get("err_code"),
        )
        if code in _FULL:
            raise LogFull(f"{text}: raise its limits, or let it forget old messages")
        if code == _TOO_LARGE:
            raise LogRefused(text, reason="config")
        raise LogUnreachable(text)

    def _frame(self, message: Message, expected: int, reply: bytes = b"") -> bytes:
        """Return a message as the protocol has it: HPUB."""
        partition, collection, document_id, kind, token, body, part, traceparent = message
        head = b"NATS/1.0\r\nNats-Expected-Last-Sequence: %d\r\nPgdoc-Token: %b\r\nPgdoc-Type: %b\r\n%b" % (
            expected,
            token.encode(),
            kind.encode(),
            _collection_header(collection),
        )
        if document_id is not None and len(document_id) <= _LONGEST_HEADER_ID:
            head += b"Pgdoc-Id: %b\r\n" % encoded(document_id).encode()
        if part is not None:
            head += b"Pgdoc-Part: %d/%d\r\n" % part
        if traceparent is not None:
            head += b"traceparent: %b\r\n" % traceparent.encode()
        subject = self._stream.subject(partition, collection, document_id)
        size = len(head) + 2
        return b"HPUB %b %b%d %d\r\n%b\r\n%b\r\n" % (subject, reply, size, size + len(body), head, body)

    async def close(self) -> None:
        """See `LogWriter`."""
        await self._connection.close()
