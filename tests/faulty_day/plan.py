"""Who takes part in a day. Plans travel to processes as JSON, on the command line."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

SCHEMA = "day"
BOOKS = "books"
"""The schema of the ledger and of what a consumer writes, beside the collections: streams don't see it."""

COLLECTIONS = ("orders", "stock", "scratch")
MARKS = "marks"
END = "end"

SERVER_SETTINGS: dict[str, object] = {
    # A crash of the server's processes loses nothing that the kernel was given, so there is no need to wait for a disk.
    "fsync": False,
    "full_page_writes": False,
    "max_connections": 200,
    "max_replication_slots": 60,
    "max_wal_senders": 60,
    "wal_sender_timeout": "5s",
    "max_slot_wal_keep_size": "24GB",
    "max_wal_size": "2GB",
    "deadlock_timeout": "100ms",
}

_Plan = TypeVar("_Plan", bound="WriterPlan | ReaderPlan | ConsumerPlan")


@dataclass(frozen=True)
class WriterPlan:
    """One process that writes.

    Attributes:
        number: of the writer; its transactions are numbered beside it in the ledger.
        style: `library` or `sql`.
        changes_per_s: what it keeps to on the average; within a transaction it runs at full speed.
        largest: how many changes a transaction may have.
        folder: where the file `stop` says that it is enough.
    """

    conninfo: str
    folder: str
    number: int
    seed: int
    style: str
    changes_per_s: float
    largest: int


@dataclass(frozen=True)
class StreamPlan:
    """One stream.

    Attributes:
        collections: whose changes it reads; all where empty.
        pause_s: how long it rests after a batch, at the most; 0 for one that reads as fast as it can.
        some: whether it wants some documents only, through a filter.
    """

    name: str
    collections: tuple[str, ...]
    buffer_size: int
    pause_s: float
    some: bool = False


SOME = {"$or": [{"collection": MARKS}, {"document_id": None}, {"document_id": {"$regex": "[02468]$"}}]}
"""What a stream of some documents has for its filter."""


class Wanted(NamedTuple):
    """What a stream or consumer wants: collections, all where none is named, and of them some documents or all."""

    collections: tuple[str, ...]
    some: bool = False

    def has(self, collection: str, document_id: str | None) -> bool:
        """Tell whether it wants an event; what it is given must be consistent, so truncations are wanted, too."""
        if self.collections and collection not in {*self.collections, MARKS}:
            return False
        return not self.some or collection == MARKS or document_id is None or document_id[-1] in "02468"


@dataclass(frozen=True)
class ReaderPlan:
    """One process with streams.

    Attributes:
        folder: of the notebooks; a file `hurry` in it tells everyone to rest no more.
    """

    conninfo: str
    folder: str
    name: str
    is_async: bool
    streams: tuple[StreamPlan, ...]


@dataclass(frozen=True)
class ConsumerPlan:
    """One process of a durable consumer; its twin has the same plan.

    Attributes:
        how: `auto` acknowledges by asking on, `ack` by saying so, `checkpoint` writes what it saw into the database.
    """

    conninfo: str
    folder: str
    name: str
    how: str
    collections: tuple[str, ...]


@dataclass(frozen=True)
class Day:
    """The whole of it.

    Attributes:
        seconds: between the first write and the last, faults included.
        pause_s: between two faults, on the average.
        patience_s: for everyone to come to the end, and for everything else that is waited for.
        cut_at_end: whether the proxy's connections are cut then; else a silent one is to be noticed by who waits at it,
            which takes a minute.
    """

    seconds: float
    seed: int
    changes_per_s: float = 400.0
    largest: int = 2_000
    pause_s: float = 6.0
    patience_s: float = 300.0
    cut_at_end: bool = False
    consumers: tuple[str, ...] = ("auto", "ack", "checkpoint")


def to_argument(plan: WriterPlan | ReaderPlan | ConsumerPlan) -> str:
    """Write a plan for a command line."""
    return json.dumps(dataclasses.asdict(plan))


def from_argument(kind: type[_Plan]) -> _Plan:
    """Read the plan of this process."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    if "streams" in given:
        given["streams"] = tuple(StreamPlan(**stream) for stream in given["streams"])
    return kind(**given)
