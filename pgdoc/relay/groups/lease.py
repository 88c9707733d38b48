"""What the records of a group say: who owns a partition and where it stands, and where the group began."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeGuard

from pgdoc.errors import LogRefused
from pgdoc.relay.finding import LogPosition
from pgdoc.relay.partitions import MOST_PARTITIONS

if TYPE_CHECKING:
    from pgdoc.relay.log import GroupRecord

__all__ = [
    "BEGUN",
    "LEASE_HEAD",
    "LONGEST_LEASE_S",
    "MEMBER_HEAD",
    "MemberRecord",
    "PartitionLease",
    "begun_value",
    "is_lease",
    "lease_key",
    "member_key",
    "partitions_of",
    "position_of",
]

LONGEST_LEASE_S: Final = 86_400.0

BEGUN: Final = "begun"
"""The key of where the group began."""
LEASE_HEAD: Final = "p."
"""What the keys of partitions begin with."""
MEMBER_HEAD: Final = "m."
"""What the keys of members begin with."""


class PartitionLease(NamedTuple):
    """The record of one partition.

    Owner and position are one value, so that a former owner can't move the position.

    Attributes:
        owner: the id of a member; empty if nobody owns the partition.
        epoch: grows with each owner.
        position: after the last acknowledged event.
    """

    owner: str
    epoch: int
    position: LogPosition

    @property
    def value(self) -> bytes:
        """What the record has."""
        sequence, token, identity = self.position
        fields = {"owner": self.owner, "epoch": self.epoch, "sequence": sequence, "token": token, "identity": identity}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, record: GroupRecord, key: str) -> Self:
        """Read what `value` returned.

        Raises:
            LogRefused: it is something else.
        """
        fields = _fields(record, key)
        owner, epoch = fields.get("owner"), fields.get("epoch")
        if not isinstance(owner, str) or not _is_count(epoch):
            raise _damaged(key)
        return cls(owner, epoch, _position(fields, key))


class MemberRecord(NamedTuple):
    """The record of a member. That it changes shows that the member is alive; what it says is for operators.

    Attributes:
        beat: a number that grows.
        lease_s: after which the member is over if its record does not change; `None` if it does not say so.
        host, pid: of its process; `None` if it does not say so.
    """

    beat: int
    lease_s: float | None
    host: str | None
    pid: int | None

    @property
    def value(self) -> bytes:
        """What the record has."""
        fields = {"beat": self.beat, "lease": self.lease_s, "host": self.host, "pid": self.pid}
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, record: GroupRecord) -> Self:
        """Read what `value` returned. Nothing depends on it, so what is something else says nothing."""
        try:
            found = json.loads(record.value)
        except (ValueError, RecursionError):
            found = None
        fields = found if isinstance(found, dict) else {}
        beat, lease_s, host, pid = (fields.get(name) for name in ("beat", "lease", "host", "pid"))
        is_span = isinstance(lease_s, int | float) and not isinstance(lease_s, bool) and 0 < lease_s <= LONGEST_LEASE_S
        return cls(
            beat if _is_count(beat) else 0,
            float(lease_s) if is_span and lease_s is not None else None,
            host if isinstance(host, str) else None,
            pid if _is_count(pid) else None,
        )


def begun_value(position: LogPosition, partitions: int) -> bytes:
    """Return the record of where the group began, in a log of so many partitions."""
    return json.dumps(position._asdict() | {"partitions": partitions}, separators=(",", ":")).encode()


def position_of(record: GroupRecord, key: str) -> LogPosition:
    """Read the place from what `begun_value` returned."""
    return _position(_fields(record, key), key)


def partitions_of(record: GroupRecord, key: str) -> int | None:
    """Read how many partitions the log had; `None` if the record does not say so."""
    count = _fields(record, key).get("partitions")
    return count if _is_count(count) else None


def _fields(record: GroupRecord, key: str) -> dict[str, Any]:
    try:
        found = json.loads(record.value)
    except (ValueError, RecursionError) as exc:
        raise _damaged(key) from exc
    if not isinstance(found, dict):
        raise _damaged(key)
    return found


def _position(fields: dict[str, Any], key: str) -> LogPosition:
    sequence, token, identity = fields.get("sequence"), fields.get("token"), fields.get("identity")
    if not _is_count(sequence) or not isinstance(token, str) or not isinstance(identity, str):
        raise _damaged(key)
    return LogPosition(sequence, token, identity)


def _is_count(value: object) -> TypeGuard[int]:
    """Return whether it is a number that PostgreSQL can store."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _damaged(key: str) -> LogRefused:
    return LogRefused(f"the record {key} of the group is damaged: drop the group, or use another", reason="foreign")


def lease_key(partition: int) -> str:
    """Return the key of a partition, without the group's prefix."""
    return f"{LEASE_HEAD}{partition}"


def is_lease(key: str) -> bool:
    """Return whether it is the key of a partition."""
    number = key.removeprefix(LEASE_HEAD)
    return number != key and number.isdecimal() and len(number) <= len(str(MOST_PARTITIONS))


def member_key(member: str) -> str:
    """Return the key of a member, without the group's prefix."""
    return f"{MEMBER_HEAD}{member}"
