"""The keys of a log in Redis. Their hash tag keeps them on one node of a cluster, so that one script may use all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pgdoc.errors import InvalidInput
from pgdoc.relay.partitions import EVERY

if TYPE_CHECKING:
    from pgdoc.relay.targets import LogTarget

__all__ = ["LAYOUT", "RedisKeys"]

LAYOUT: Final = "{name}:partition"

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


class RedisKeys:
    """The keys of the log that a URL names.

    Attributes:
        shown: the log, for messages.
        log: a hash with the configuration, and where the log and each of its streams end.
        marks: a list of times and the sequences reached then, for trimming by age.
        records: a hash with the records of groups.
    """

    def __init__(self, target: LogTarget) -> None:
        if not _NAME.fullmatch(target.name):
            raise InvalidInput(
                f"{target.shown} names no log: add its name, of letters, digits and _ . : -, such as "
                "redis://host/ORDERS. The number of a database is an option: redis://host/ORDERS?db=1"
            )
        self.shown = f'the log "{target.name}" of {target.shown}'
        self._prefix = f"{{{target.name}}}:"
        self.log, self.marks, self.records = self._key("log"), self._key("marks"), self._key("records")

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{name}".encode()

    def stream(self, partition: int) -> bytes:
        """Return the key of the stream of a partition, or of `EVERY`."""
        return self._key(stream_name(partition))

    def of_scripts(self, partitions: int) -> list[bytes]:
        """Return the keys that the scripts take: stream `n` is the fourth and what follows it, `EVERY` the third."""
        return [self.log, self.marks, *(self.stream(number) for number in range(EVERY, partitions))]


def stream_name(partition: int) -> str:
    """Return `0`, `1` ... or `all`: the end of a stream's key, and of its field in the hash."""
    return "all" if partition == EVERY else str(partition)
