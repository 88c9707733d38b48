"""Reads a log in Redis: the streams of its partitions, merged by the sequence of their entries.

Redis answers a read of several streams from one moment, so what it returns is whole up to the sequence at which the log
ended then, or up to the last entry of a stream that had more than was asked for. An entry names the one before it in
its stream, and the log's hash the last one of each: so whatever was trimmed or deleted shows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import HistoryLost, LogRefused, LogUnreachable
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.config import LogConfig
from pgdoc.relay.log import LogEntry, LogInfo
from pgdoc.relay.partitions import EVERY
from pgdoc.relay.redis.connection import OPTIONS, RedisConnection, packed, redis_errors
from pgdoc.relay.redis.keys import RedisKeys, stream_name
from pgdoc.relay.redis.scripts import OLDEST, TOKEN
from pgdoc.relay.redis.writer import part_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgdoc.relay.targets import LogTarget

__all__ = ["RedisReader"]

_LEAST: Final = 1  # before their size is known
_AT_ONCE_BYTES: Final = 16 << 20
_POLL_S: Final = 0.05


class _PartitionStream:
    """The stream of one partition, as far as it was read.

    Attributes:
        key: of the stream.
        cursor: the sequence of the last entry that was read.
        until: the sequence up to which everything was read.
    """

    def __init__(self, key: bytes, field: str, after: int) -> None:
        self.key, self.field = key, field
        self.cursor = self.until = after


class RedisReader:
    """See `LogReader`."""

    def __init__(self, target: LogTarget) -> None:
        target.check_options(OPTIONS)
        self._keys = RedisKeys(target)
        self._connection = RedisConnection(target, self._keys.shown)
        self._identity = b""
        self._partitions = 0
        self.position = 0
        # Since `begin`.
        self._sources: list[_PartitionStream] = []
        self._collections: frozenset[bytes] = frozenset()
        self._held: list[LogEntry] = []  # read, and beyond what another stream was read to
        self._count, self._size = _LEAST, 1  # how many entries are asked of each stream, and how large they are

    async def open(self) -> LogInfo:
        """See `LogReader`."""
        keys, connection = self._keys, self._connection
        await connection.open(keys.log, writes=False)
        config, identity, sequence, first, part = await connection.ask(
            "HMGET", keys.log, "config", "identity", "sequence", "first", "part"
        )
        if config is None and not await connection.ask("EXISTS", keys.log):
            raise LogRefused(
                f"{keys.shown} does not exist: check the name, or begin to write it with pgdoc relay", reason="missing"
            )
        found = LogConfig.parse(None if config is None else config.decode(), keys.shown)
        self._identity, self._partitions = identity, found.partitions
        oldest = await self._run(OLDEST)
        return LogInfo(
            identity=identity.decode(),
            first=max(int(first), int(sequence) + 1 if oldest is None else oldest),
            last=int(sequence),
            config=found,
            begun_at=found.begun_at,
            last_part=part_of(part),
        )

    async def _run(self, script: bytes, *arguments: str) -> Any:
        names = self._keys.of_scripts(self._partitions)
        return await self._connection.ask("EVAL", script, len(names), *names, *arguments)

    async def token_at(self, sequence: int) -> str | None:
        """See `LogReader`."""
        found = await self._run(TOKEN, f"{sequence}-0") if sequence > 0 else None
        return None if found is None else found.decode()

    async def newest(self) -> list[int]:
        """See `LogReader`."""
        fields = [f"last:{stream_name(number)}" for number in range(EVERY, self._partitions)]
        found = await self._connection.ask("HMGET", self._keys.log, *fields)
        of_all, *others = (int(each or 0) for each in found)
        return [max(each, of_all) for each in others]

    async def begin(self, after: int, *, collections: Collection[str] = (), partitions: Collection[int] = ()) -> None:
        """See `LogReader`."""
        self._connection.check_open()
        numbers = [EVERY, *(sorted(partitions) if partitions else range(self._partitions))]
        self._sources = [
            _PartitionStream(self._keys.stream(each), f"last:{stream_name(each)}", after) for each in numbers
        ]
        self._collections = frozenset(name.encode(errors="surrogatepass") for name in collections)
        self._held, self.position = [], after
        self._count = _LEAST

    async def fetch(self, most: int, wait_s: float) -> list[LogEntry]:
        """See `LogReader`."""
        loop = asyncio.get_running_loop()
        deadline, is_woken = loop.time() + wait_s, False
        while True:
            if found := self._taken(most):
                return found
            if await self._read(most):
                is_woken = False
                continue
            left_s = deadline - loop.time()
            if left_s <= 0:
                return []
            if is_woken:  # by an entry beyond the log's end, which a script that failed midway left there
                await asyncio.sleep(min(left_s, _POLL_S))
            is_woken = await self._wait(left_s)

    def _taken(self, most: int) -> list[LogEntry]:
        """Take what may be returned: nothing that was not read yet comes before it."""
        whole = min(source.until for source in self._sources)
        held = self._held
        count = next((at for at, entry in enumerate(held[:most]) if entry.sequence > whole), min(most, len(held)))
        found, self._held = held[:count], held[count:]
        left = self._held
        # An entry that is held and was read to its end is the next one: the position is just before it.
        self.position = max(self.position, min(whole, left[0].sequence - 1) if left else whole)
        return found

    async def _read(self, most: int) -> bool:
        """Read the streams that are behind; return whether any has advanced."""
        whole = min(source.until for source in self._sources)
        behind = [source for source in self._sources if source.until == whole]
        count = max(1, min(self._count, most, _AT_ONCE_BYTES // (self._size * len(behind))))
        ended, streams = await self._asked(behind, count)
        found, is_full = dict(streams or ()), False
        for source, last in zip(behind, ended[2:], strict=True):
            entries = found.get(source.key, [])
            self._add(source, entries)
            if len(entries) < count:
                self._check_end(source, last)
                source.until = max(source.until, int(ended[1]))
            else:
                source.until, is_full = source.cursor, True
        self._held.sort()
        self._count = min(2 * self._count, 4096) if is_full else self._count
        return min(source.until for source in self._sources) > whole

    async def _asked(self, behind: list[_PartitionStream], count: int) -> tuple[list[Any], Any]:
        """Return where the log and the streams end, and what they have, of one moment."""
        names = [source.key for source in behind]
        commands: list[list[bytes | str | int]] = [
            ["MULTI"],
            ["HMGET", self._keys.log, "identity", "sequence", *(source.field for source in behind)],
            ["XREAD", "COUNT", count, "STREAMS", *names, *(f"{source.cursor}-0" for source in behind)],
            ["EXEC"],
        ]
        answers = [await self._connection.write(len(each), packed(each)) for each in commands]
        for answer in answers[:-1]:
            await self._connection.answered(answer)
        ended, streams = await self._connection.answered(answers[-1])
        for each in (ended, streams):
            if isinstance(each, Exception):
                with redis_errors(self._keys.shown):
                    raise each
        if ended[0] != self._identity:
            raise LogUnreachable(f"{self._keys.shown} was deleted or made anew")
        return ended, streams

    def _add(self, source: _PartitionStream, entries: list[Any]) -> None:
        """Take entries of a stream, after a check that none is missing before or between them."""
        wanted, size = self._collections, 0
        for raw_id, fields in entries:
            previous, entry = self._entry(raw_id, fields)
            if previous > source.cursor:
                raise self._lost(source, fields[3])
            source.cursor = entry.sequence
            size += len(entry.body)
            if not wanted or fields[5] in wanted:
                self._held.append(entry)
        if entries:
            self._size = max(1, (self._size + size // len(entries)) // 2)

    def _entry(self, raw_id: bytes, fields: list[bytes]) -> tuple[int, LogEntry]:
        """Return the sequence before an entry in its stream, and the entry.

        Raises:
            LogRefused: no relay wrote it.
        """
        try:
            # One with another form fails in one of these.
            number = raw_id[:-2] if raw_id.endswith(b"-0") and (fields[0], fields[8]) == (b"previous", b"body") else b""
            part = part_of(fields[11]) if len(fields) > 10 else None
            return int(fields[1]), LogEntry(int(number), fields[3].decode(), fields[9], part)
        except (ValueError, IndexError) as exc:
            raise LogRefused(
                f"{self._keys.shown} has an entry that no relay wrote, with the id {raw_id.decode()}: nobody else may "
                "write there",
                reason="foreign",
            ) from exc

    def _check_end(self, source: _PartitionStream, last: bytes | None) -> None:
        if last is not None and int(last) > source.cursor:
            raise self._lost(source, None)

    def _lost(self, source: _PartitionStream, token: bytes | None) -> HistoryLost:
        return HistoryLost(
            f"{self._keys.shown} has forgotten entries after sequence {source.cursor:,}: rebuild from the collections, "
            "then resume after a token from before that",
            oldest_available=None if token is None else str(ResumeToken.parse(token.decode()).lsn),
        )

    async def _wait(self, seconds: float) -> bool:
        """Wait until a stream has another entry; return whether one has.

        A Redis before version 7.2 answers of one stream only: it must be read again.
        """
        command: list[bytes | str | int] = ["XREAD", "COUNT", 1, "BLOCK", max(1, int(1000 * seconds)), "STREAMS"]
        command += [source.key for source in self._sources]
        command += [f"{source.cursor}-0" for source in self._sources]
        return await self._connection.ask(*command, wait_s=seconds) is not None

    async def close(self) -> None:
        """See `LogReader`."""
        await self._connection.close()
