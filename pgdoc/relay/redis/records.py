"""The records beside a log in Redis: a hash, of which each field has a revision and a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pgdoc.relay.log import GroupRecord
from pgdoc.relay.redis.connection import OPTIONS, RedisConnection
from pgdoc.relay.redis.keys import RedisKeys
from pgdoc.relay.redis.scripts import DELETE, WRITE

if TYPE_CHECKING:
    from pgdoc.relay.targets import LogTarget

__all__ = ["RedisRecords"]

_KEY: Final = re.compile(rb"[A-Za-z0-9_=.%-]+")
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,18}):(.*)", re.DOTALL)


def _record(raw: bytes) -> GroupRecord:
    """Return a record; one that somebody else has written has the revision 0, and is damaged."""
    found = _RECORD.fullmatch(raw)
    return GroupRecord(raw, 0) if found is None else GroupRecord(found[2], int(found[1]))


class RedisRecords:
    """See `LogRecords`."""

    def __init__(self, target: LogTarget) -> None:
        target.check_options(OPTIONS)
        self._keys = RedisKeys(target)
        self._connection = RedisConnection(target, self._keys.shown)

    async def open(self, *, creates: bool = True) -> bool:
        """See `LogRecords`. The first record creates the hash."""
        await self._connection.open(self._keys.log)
        return creates or bool(await self._connection.ask("EXISTS", self._keys.records))

    async def read(self, prefix: str) -> dict[str, GroupRecord]:
        """See `LogRecords`."""
        found = await self._connection.ask("HGETALL", self._keys.records)
        return {
            field.decode(): _record(raw)
            for field, raw in zip(found[::2], found[1::2], strict=True)
            if field.startswith(prefix.encode()) and _KEY.fullmatch(field)
        }

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        """See `LogRecords`."""
        made = await self._connection.ask("EVAL", WRITE, 1, self._keys.records, key, revision, value)
        return int(made) or None

    async def delete(self, key: str, revision: int) -> bool:
        """See `LogRecords`."""
        return bool(await self._connection.ask("EVAL", DELETE, 1, self._keys.records, key, revision))

    async def close(self) -> None:
        """See `LogRecords`."""
        await self._connection.close()
