"""What a Redis server says of itself, and whether it can keep a log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from pgdoc.errors import LogRefused
from pgdoc.relay.durations import seconds_of

if TYPE_CHECKING:
    from pgdoc.relay.redis.connection import RedisConnection

__all__ = ["check_redis"]

logger = logging.getLogger("pgdoc.relay")

_OLDEST: Final = (6, 2)  # XTRIM MINID
_FSYNC_S: Final = {"always": 0.0, "everysec": 2.0, "no": 60.0}
"""How long it takes until what was written is on disk: Redis waits up to two seconds for an fsync before it writes, and
without its fsync Linux writes back what is 30 seconds old."""
_SAVE_S: Final = 60.0  # room for a snapshot to be written


async def check_redis(connection: RedisConnection, shown: str) -> float:
    """Return how long the server may take to bring to its disk what it has acknowledged.

    Raises:
        LogRefused: it would evict entries, or keeps nothing on disk, or is too old.
    """
    info = _parsed(await connection.ask("INFO"))
    version = tuple(int(each) for each in info.get("redis_version", "0.0").split(".")[:2])
    if version < _OLDEST:
        raise LogRefused(f"{shown}: Redis {info.get('redis_version')} is too old: use 6.2 or later", reason="version")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys") and info.get("maxmemory", "0") != "0":
        raise LogRefused(
            f"{shown} could be evicted: maxmemory-policy is {policy}; set it to noeviction, or to one that evicts only "
            "keys that expire (volatile-...)",
            reason="config",
        )
    given = seconds_of(connection.target, "confirm_after")
    if given is not None:
        return given
    return await _confirm_after(connection, info, shown)


async def _confirm_after(connection: RedisConnection, info: dict[str, str], shown: str) -> float:
    if info.get("aof_enabled") == "1":
        return _FSYNC_S.get(await _setting(connection, "appendfsync") or "", _FSYNC_S["everysec"])
    saves = [int(each) for each in (await _setting(connection, "save") or "").split()[::2]]
    if not saves:
        raise LogRefused(
            f"{shown} would not survive a restart: the server writes neither an append-only file nor snapshots. Set "
            "appendonly yes, or accept the loss with ?confirm_after=0s",
            reason="config",
        )
    seconds = max(saves) + _SAVE_S
    logger.warning(
        "%s: the server has no append-only file, only snapshots: PostgreSQL keeps the events of the last %.0f s. "
        "appendonly yes makes that 2 s",
        shown,
        seconds,
    )
    return seconds


async def _setting(connection: RedisConnection, name: str) -> str | None:
    """Return a setting; `None` if this user may not see it."""
    try:
        found = await connection.ask("CONFIG", "GET", name)
    except LogRefused:
        return None
    return found[1].decode() if found else None


def _parsed(info: bytes) -> dict[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
