"""Writes a log into Redis: exactly once, whatever fails.

Each window is one script that appends only if the log ends with the sequence before it. So the log is a prefix of what
the relay sends, and a second relay only competes to write the same next window. A snapshot that is read again is
another one: its windows are appended only for the writer that opened the log last.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, LogRefused, LogUnreachable
from pgdoc.relay.config import LogConfig
from pgdoc.relay.durations import number_of, seconds_of, size_option
from pgdoc.relay.log import LogEnd
from pgdoc.relay.messages import is_of_snapshot, part_of_text
from pgdoc.relay.redis.connection import OPTIONS, RedisConnection, packed
from pgdoc.relay.redis.keys import LAYOUT, RedisKeys
from pgdoc.relay.redis.scripts import APPEND, ARGUMENTS, CREATE, REPAIR, TOKEN
from pgdoc.relay.redis.server import check_redis

if TYPE_CHECKING:
    from pgdoc.relay.messages import LogMessage, MessagePart, Window
    from pgdoc.relay.targets import LogTarget

__all__ = ["RedisWriter", "part_of"]

_LIMIT: Final = 8 << 20
_LIMITS: Final = 1 << 10, 256 << 20  # Redis takes arguments of up to 512 MiB, and no client may buffer a gigabyte
_SCRIPT_BYTES: Final = 16 << 20  # of one script: other clients wait while it runs
_EVERY_INDEX: Final = 3  # of the key of EVERY, see RedisKeys.of_scripts


class RedisWriter:
    """See `LogWriter`."""

    def __init__(self, target: LogTarget) -> None:
        target.check_options(OPTIONS)
        self._keys = RedisKeys(target)
        self._connection = RedisConnection(target, self._keys.shown)
        self._most = number_of(target, "max_len", least=1, most=10**12) or 0
        self._age_s = seconds_of(target, "max_age") or 0.0
        self._wished = size_option(target, "max_message") or _LIMIT
        if not _LIMITS[0] <= self._wished <= _LIMITS[1]:
            raise InvalidInput(f"max_message in {target.shown} must be from 1k to 256m")
        self._replicas = number_of(target, "wait_replicas", least=1, most=100) or 0
        self._wait_ms = int(1000 * (seconds_of(target, "timeout") or 5.0))
        self.limit = 0
        self.confirm_after_s = 0.0
        self._sequence, self._identity, self._mark = 0, b"", b""
        self._head: list[bytes] = []  # the arguments of a script before those of its window
        self._turn = asyncio.Lock()  # of windows, which are written one after the other

    async def open(self, config: LogConfig) -> LogEnd:
        """See `LogWriter`."""
        keys, connection = self._keys, self._connection
        await connection.open(keys.log)
        self.confirm_after_s = await check_redis(connection, keys.shown)
        found = await self._config(config.of_engine(limit=self._wished, layout=LAYOUT))
        self.limit = found.limit
        names = keys.of_scripts(found.partitions)
        self._mark = secrets.token_bytes(8).hex().encode()
        answer = await connection.ask("EVAL", REPAIR, len(names), *names, self._mark)
        if answer[0] == b"foreign":
            raise self._foreign(f"has entries in {answer[1].decode()} that no relay wrote: nobody else may write there")
        await self._replicated(await self._asked_replicas())
        self._identity, sequence, token, part = answer
        self._sequence, self._turn = int(sequence), asyncio.Lock()
        self._head = packed([b"EVAL", APPEND, len(names), *names, self._identity, self._most, f"{self._age_s:.3f}"])
        end = LogEnd(self._sequence, token.decode() if token else None, part_of(part), self._identity.decode())
        return end._replace(before=await self._before(end, names))

    async def _before(self, end: LogEnd, names: list[bytes]) -> str | None:
        """Return the token of the entry before the last event of a snapshot, if the log ends inside that."""
        if end.part is None or end.token is None or not is_of_snapshot(end.token):
            return None
        found = await self._connection.ask("EVAL", TOKEN, len(names), *names, f"{end.sequence - end.part.number}-0")
        return None if found is None else str(found.decode())

    async def _config(self, wanted: LogConfig) -> LogConfig:
        """Return what the log has, after making it if there is none."""
        keys, connection = self._keys, self._connection
        raw = await connection.ask("HGET", keys.log, "config")
        if raw is None:
            names = keys.of_scripts(wanted.partitions)
            made = await connection.ask("EVAL", CREATE, len(names), *names, wanted.text, uuid.uuid4().hex)
            if made not in (b"made", b"found"):
                raise self._foreign(f"has the key {made.decode()} that no relay made: delete it, or use another name")
            raw = await connection.ask("HGET", keys.log, "config")
        found = LogConfig.parse(None if raw is None else raw.decode(), keys.shown)
        wanted.of_engine(limit=found.limit, layout=LAYOUT).check(found, keys.shown)
        return found

    def _foreign(self, finding: str) -> LogRefused:
        return LogRefused(f"{self._keys.shown} {finding}", reason="foreign")

    async def send(self, window: Window) -> int:
        """See `LogWriter`."""
        base = self._sequence
        last = self._sequence = base + len(window)
        answers = []
        turn = self._turn
        async with turn:
            if turn is not self._turn:
                raise LogUnreachable(f"{self._keys.shown} was opened again")
            for chunk in self._chunks(window):
                answers.append((base + len(chunk), await self._write(chunk, base)))
                base += len(chunk)
            replicas = await self._asked_replicas()
        for sequence, answer in answers:
            self._check(await self._connection.answered(answer), sequence)
        await self._replicated(replicas)
        return last

    def _chunks(self, window: Window) -> list[Window]:
        """Divide a window of large messages among several scripts."""
        chunks: list[Window] = [[]]
        size = 0
        for message in window:
            if chunks[-1] and size + len(message.body) > _SCRIPT_BYTES:
                chunks.append([])
                size = 0
            chunks[-1].append(message)
            size += len(message.body)
        return chunks

    async def _write(self, window: Window, base: int) -> asyncio.Future[Any]:
        mark = self._mark if any(is_of_snapshot(message.token) for message in window) else b""
        parts = [*self._head, *packed([base, mark]), *map(_packed, window)]
        count = len(self._head) + 2 + ARGUMENTS * len(window)
        return await self._connection.write(count, parts)

    def _check(self, answer: list[Any], sequence: int) -> None:
        state, found = answer
        if state == b"gone":
            raise LogUnreachable(f"{self._keys.shown} was deleted or made anew")
        if state == b"former":
            raise LogUnreachable(f"{self._keys.shown} was opened by another relay, and this one is inside a snapshot")
        if state != b"ok" or found != sequence:
            raise LogUnreachable(
                f"{self._keys.shown} ends at {found}, not where this relay goes on: another one writes"
            )

    async def _asked_replicas(self) -> asyncio.Future[Any] | None:
        if not self._replicas:
            return None
        return await self._connection.write(3, packed(["WAIT", self._replicas, self._wait_ms]))

    async def _replicated(self, answer: asyncio.Future[Any] | None) -> None:
        """Wait until replicas have what was written, if the URL asks for that."""
        if answer is None:
            return
        count = await self._connection.answered(answer, self._wait_ms / 1000)
        if count < self._replicas:
            raise LogUnreachable(f"{self._keys.shown}: {count} of {self._replicas} replicas have what was written")

    async def check(self, sequence: int) -> None:
        """See `LogWriter`."""
        keys = self._keys
        identity, found = await self._connection.ask("HMGET", keys.log, "identity", "sequence")
        if identity != self._identity:
            raise LogUnreachable(f"{keys.shown} was deleted or made anew")
        if int(found) < sequence:
            raise LogUnreachable(f"{keys.shown} ends at sequence {int(found):,}, and has acknowledged {sequence:,}")

    async def close(self) -> None:
        """See `LogWriter`."""
        await self._connection.close()


def _packed(message: LogMessage) -> bytes:
    """Return the arguments of a message as the protocol has them: `packed` takes three times as long."""
    partition, collection, _, kind, token, body, part, trace = message
    index = b"%d" % (partition + _EVERY_INDEX + 1)
    name = collection.encode(errors="surrogatepass")
    which = b"" if part is None else b"%d/%d" % part
    trace_raw = b"" if trace is None else trace.encode()
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(index), index, len(token), token.encode(), len(name), name, len(kind), kind.encode(), len(body), body,
        len(which), which, len(trace_raw), trace_raw,
    )  # fmt: skip


def part_of(raw: bytes | None) -> MessagePart | None:
    """Return which part of an event an entry has.

    Raises:
        ValueError: no relay wrote that.
    """
    return part_of_text(None if raw is None else raw.decode())
