"""Writes a log into JetStream: exactly once, whatever fails.

Each message has the sequence that the stream must end with before it, in `Nats-Expected-Last-Sequence`. The server
checks that for every message, so the stream is a prefix of what the relay sends, and a second relay only competes to
write the same next message. Only the last message of a window asks for an acknowledgement.

A snapshot that is read again is another one. So each of its messages also names the message before it, by an id with
the writer's own mark: what a former writer has still on its way can't get between those of its successor. Only a stream
with one replica: nats-server 2.15 never answers such a message in a stream with three.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import LogFull, LogRefused, LogUnreachable
from pgdoc.relay.durations import seconds_of
from pgdoc.relay.nats.connection import CONNECTION_OPTIONS, NatsConnection
from pgdoc.relay.nats.stream import HEADER_ROOM, NatsStream
from pgdoc.relay.partitions import encoded

if TYPE_CHECKING:
    from pgdoc.relay.config import LogConfig
    from pgdoc.relay.log import LogEnd
    from pgdoc.relay.messages import LogMessage, Window
    from pgdoc.relay.targets import LogTarget

__all__ = ["NatsWriter"]

_OPTIONS: Final = CONNECTION_OPTIONS | {
    "replicas", "max_age", "max_bytes", "when_full", "subjects", "sync_interval", "ack_wait",
}  # fmt: skip
_SYNC_INTERVAL_S: Final = 120.0  # the server's default
_SYNC_TAKES_S: Final = 10.0
_ACK_S: Final = 10.0
_FULL: Final = {10002, 10023, 10028, 10047, 10077, 10122}
"""Limits of the account, the server or the stream: resources, memory, storage, bytes or messages."""
_TOO_LARGE: Final = 10054
_WRITE_BYTES: Final = 128 << 10
"""asyncio moves what a socket has not taken yet with each write: of a whole window, that costs more than all else."""
_LONGEST_HEADER_ID: Final = 2000  # encoded; a longer one stands in the body alone
_LONGEST_ID: Final = 1000  # in a subject: one of 4,096 characters ends the connection


@lru_cache(maxsize=4096)
def _shared_headers(kind: str, collection: str) -> str:
    return f"Pgdoc-Type: {kind}\r\nPgdoc-Collection: {encoded(collection)}\r\n"


class NatsWriter:
    """See `LogWriter`."""

    def __init__(self, target: LogTarget) -> None:
        target.check_options(_OPTIONS)
        self._connection = NatsConnection(target)
        self._stream = NatsStream(target, self._connection)
        self._ack_s = seconds_of(target, "ack_wait") or _ACK_S
        sync_s = seconds_of(target, "sync_interval")
        sync_s = _SYNC_INTERVAL_S if sync_s is None else sync_s
        self.confirm_after_s = sync_s + min(sync_s, _SYNC_TAKES_S)
        self.limit = 0
        # Of the loop: what each opening sets anew. `_sequence` is that of the last message that was sent.
        self._identity, self._sequence, self._ended_at = "", -1, -1
        self._is_stuck = self._is_fenced = False
        self._mark, self._last_id = "", ""  # of this opening, and the id of the stream's last message
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
        end, last_id = await stream.end(info)
        self._identity, self._is_fenced = end.identity, (info.config.num_replicas or 1) == 1
        self._is_stuck = end.sequence == self._ended_at
        self._sequence = self._ended_at = end.sequence
        self._mark, self._last_id = secrets.token_hex(4), "" if self._is_stuck else last_id or ""
        self._turn = asyncio.Lock()
        return end

    @property
    def _max_payload(self) -> int:
        client = self._connection.client
        size = 0 if client is None else client.max_payload
        if size <= 2 * HEADER_ROOM:
            raise LogRefused(
                f"{self._stream.shown}: the server's max_payload is {size:,}: it must be more than 32 KiB",
                reason="config",
            )
        return size

    async def send(self, window: Window) -> int:
        """See `LogWriter`."""
        base, turn = self._sequence, self._turn
        last = self._sequence = base + len(window)
        async with turn:
            if turn is not self._turn:
                raise LogUnreachable(f"{self._stream.shown} was opened again")
            if self._is_stuck:  # only the first message that is refused gets the real error, such as "full"
                await self._acknowledged(await self._write(window[:1], base), base + 1)
                self._is_stuck = False
                window, base = window[1:], base + 1
            acknowledgement = await self._write(window, base) if window else None
        if acknowledgement is not None:
            await self._acknowledged(acknowledgement, last)
        return last

    async def _write(self, window: Window, base: int) -> asyncio.Future[bytes]:
        """Write the messages; the future has the server's answer to the last."""
        reply, answer = self._connection.expect()
        frames: list[bytes] = []
        size, last = 0, window[-1]
        with self._connection.asking(self._stream.shown):
            for message in window:
                self._add_frame(frames, message, base, reply if message is last else "")
                base += 1
                size += len(message.body)
                if size >= _WRITE_BYTES:
                    await self._connection.write(b"".join(frames))
                    frames, size = [], 0
            if frames:
                await self._connection.write(b"".join(frames))
        return answer

    async def _acknowledged(self, answer: asyncio.Future[bytes], sequence: int) -> None:
        """Wait until the server has stored a message, and all before it."""
        with self._connection.asking(self._stream.shown):
            text = await asyncio.wait_for(answer, self._ack_s)
        if not text:
            raise LogUnreachable(f"{self._stream.shown} does not answer: it may have no leader now")
        self._check(json.loads(text), sequence)

    def _check(self, answer: dict[str, Any], sequence: int) -> None:
        """Raise the error of an answer that is none of success."""
        stream, error = self._stream, answer.get("error")
        if error is None:
            if answer.get("seq") != sequence or answer.get("stream") != stream.name:
                found = f"{answer.get('stream')}:{answer.get('seq')}"
                raise LogUnreachable(f"{stream.shown} acknowledged {found} instead of {sequence}: another relay writes")
            return
        code, text = (
            error.get("err_code"),
            f"{stream.shown}: {error.get('description')} (error {error.get('err_code')})",
        )
        if code in _FULL:
            raise LogFull(f"{text}: raise its limits, or let it forget old messages")
        if code == _TOO_LARGE:
            raise LogRefused(text, reason="config")
        raise LogUnreachable(text)

    def _add_frame(self, frames: list[bytes], message: LogMessage, expected: int, reply: str) -> None:
        """Add a message as the protocol has it: HPUB. All of its headers are ASCII."""
        partition, collection, document_id, kind, token, body, part, traceparent = message
        subject, shared = self._stream.subject(partition, collection), _shared_headers(kind, collection)
        rare = ""
        if document_id is not None:
            safe_id = encoded(document_id)
            if self._stream.has_ids:
                subject = f"{subject}.{safe_id[:_LONGEST_ID] or '%'}"
            if len(safe_id) <= _LONGEST_HEADER_ID:
                shared = f"{shared}Pgdoc-Id: {safe_id}\r\n"
        if part is not None:
            rare = f"Pgdoc-Part: {part.number}/{part.total}\r\n"
        if traceparent is not None:
            rare += f"traceparent: {traceparent}\r\n"
        if self._is_fenced and ".s" in token:  # is_of_snapshot, without a call
            rare += self._fence(expected)
        head = f"NATS/1.0\r\nNats-Expected-Last-Sequence: {expected}\r\nPgdoc-Token: {token}\r\n{shared}{rare}\r\n"
        size = len(head)
        frames += (f"HPUB {subject} {reply}{size} {size + len(body)}\r\n{head}".encode(), body, b"\r\n")

    def _fence(self, expected: int) -> str:
        """Return the headers by which a message of a snapshot follows one of this writer, or the one it has found."""
        before, self._last_id = self._last_id, f"{self._mark}-{expected + 1}"
        fence = f"Nats-Expected-Last-Msg-Id: {before}\r\n" if before else ""
        return f"{fence}Nats-Msg-Id: {self._last_id}\r\n"

    async def check(self, sequence: int) -> None:
        """See `LogWriter`."""
        info = await self._stream.find()
        if info is None or self._stream.identity(info) != self._identity:
            raise LogUnreachable(f"{self._stream.shown} was deleted")
        if info.state.last_seq < sequence:
            raise LogUnreachable(
                f"{self._stream.shown} ends at sequence {info.state.last_seq:,}, and has acknowledged {sequence:,}"
            )

    async def close(self) -> None:
        """See `LogWriter`."""
        await self._connection.close()
