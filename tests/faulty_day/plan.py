"""The settings of a run and of its processes, which receive theirs as JSON on the command line."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

SCHEMA = "day"
BOOKS = "books"
"""The schema of the ledger and of the consumer's audit table; outside the schema that streams read."""

COLLECTIONS = ("orders", "stock", "scratch")
SHOP = "shop"
TABLES = (f"{SHOP}.items", f"{SHOP}.papers")
"""Tables that are watched as they are, in a schema of their own; the second one has a document, `payload`."""
MARKS = "marks"
POISONOUS = "vandal_poison"
"""A table with a row that no plugin can send. The reference slot leaves it out."""
END = "end"
COUNTED = frozenset({*COLLECTIONS, *TABLES, MARKS})
"""The collections and tables whose events are compared."""

SERVER_SETTINGS: dict[str, object] = {
    # Only server processes crash, not the machine. The kernel keeps what they wrote, so there is no need to sync to
    # disk.
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

_Plan = TypeVar("_Plan", bound="WriterPlan | ReaderPlan | ConsumerPlan | VandalPlan")


@dataclass(frozen=True)
class WriterPlan:
    """One writing process.

    Attributes:
        number: The number of the writer; the ledger numbers the transactions per writer.
        style: `library` or `sql`.
        changes_per_s: The average rate; within a transaction the writer runs at full speed.
        largest: The most changes in a transaction.
        folder: The folder in which the file `stop` ends the writer.
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
        collections: The collections and tables it reads; empty for all.
        pause_s: The longest pause after a batch; 0 for a stream that reads as fast as it can.
        some: Whether a filter (`SOME`) selects some of the documents.
    """

    name: str
    collections: tuple[str, ...]
    buffer_size: int
    pause_s: float
    some: bool = False


SOME = {"$or": [{"collection": MARKS}, {"document_id": None}, {"document_id": {"$regex": "[02468]$"}}]}
"""The filter of a stream that reads some of the documents."""


class Wanted(NamedTuple):
    """The events that a stream or consumer must receive: the collections (empty for all), and some or all documents."""

    collections: tuple[str, ...]
    some: bool = False

    def has(self, collection: str, document_id: str | None) -> bool:
        """Return whether an event must be received; truncations (no document id) always are, to stay consistent."""
        if self.collections and collection not in {*self.collections, MARKS}:
            return False
        return not self.some or collection == MARKS or document_id is None or document_id[-1] in "02468"


@dataclass(frozen=True)
class ReaderPlan:
    """One reading process.

    Attributes:
        folder: The folder of the notebooks; the file `hurry` in it ends all pauses.
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
        how: `auto` acknowledges by requesting the next event, `ack` calls `ack`, `checkpoint` commits its effects and a
            checkpoint in one transaction.
    """

    conninfo: str
    folder: str
    name: str
    how: str
    collections: tuple[str, ...]


@dataclass(frozen=True)
class VandalPlan:
    """One process of a role without rights.

    Attributes:
        name: The name of the process.
        creates: Whether the role may create tables in the schema, and functions in `public`.
    """

    conninfo: str
    folder: str
    name: str
    seed: int
    creates: bool


@dataclass(frozen=True)
class Day:
    """The settings of a run.

    Attributes:
        seconds: The time in which faults are caused, while the writers write.
        pause_s: The average time between two faults.
        patience_s: The timeout for reading to the end, and for everything else that is waited for.
        cut_at_end: Whether the proxy's connections are cut at the end. Otherwise clients must detect silent connections
            themselves, which takes a minute.
    """

    seconds: float
    seed: int
    changes_per_s: float = 400.0
    largest: int = 2_000
    pause_s: float = 6.0
    patience_s: float = 300.0
    cut_at_end: bool = False
    consumers: tuple[str, ...] = ("auto", "ack", "checkpoint")


def to_argument(plan: WriterPlan | ReaderPlan | ConsumerPlan | VandalPlan) -> str:
    """Return a plan as a command line argument."""
    return json.dumps(dataclasses.asdict(plan))


def from_argument(kind: type[_Plan]) -> _Plan:
    """Return the plan of this process, from its command line."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    if "streams" in given:
        given["streams"] = tuple(StreamPlan(**stream) for stream in given["streams"])
    return kind(**given)
