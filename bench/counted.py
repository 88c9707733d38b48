"""The work that `bench.instructions` counts: a JSON line for each piece, and no count without valgrind.

`bench.instructions` runs this module so:

    valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=FOLDER/%p python -m bench.counted

Each piece runs in two forked processes, once with N changes and once with 2N. Both begin in the same state, so the
difference is what N changes take, without start-up, imports, and what the interpreter learns in the first calls. A JSON
line for each process says what it did; valgrind writes its count to a file named by its process id.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from bench.messages import FRAMES, OID, SCHEMA, TABLE
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.diff import diff
from pgdoc.changes.events import ChangeEvent, from_change
from pgdoc.changes.registry import Registry
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.decoding.records import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Change
    from pgdoc.decoding.records import Record

    Work = Callable[[int], object]

CHANGES = 300
A_BURST = 50  # how many frames a reader gets at once
REFERENCE = "reference"
IDS = (7_421_000_123_456_789, 1, 16_384)


def main() -> int:
    pieces: dict[str, Work] = {REFERENCE: reference}
    for plugin in PLUGINS:
        pieces |= pieces_of(plugin)
    for work in pieces.values():
        work(CHANGES)  # the interpreter adapts its code to what it runs, later in one process than in the other
    gc.collect()
    gc.disable()  # a collection's moment depends on earlier allocations, so it would vary
    runs = [
        {"piece": name, "count": count, "pid": _run(partial(work, count))}
        for name, work in pieces.items()
        for count in (CHANGES, 2 * CHANGES)
    ]
    for run in runs:
        print(orjson.dumps(run).decode())
    return 0


def _run(work: Callable[[], object]) -> int:
    """Do the work in a forked process, and return its id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)  # nothing else is to be counted
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("the counted work failed")
    return pid


def pieces_of(plugin: str) -> dict[str, Work]:
    """Return each piece of a change's way, which gets what the pieces before it make of the changes."""
    frames, some_frames = (_bursts(FRAMES[plugin](count)) for count in (2 * CHANGES, CHANGES))
    records, some_records = (_decoded(plugin, bursts) for bursts in (frames, some_frames))
    changes = [change for burst in _assembled(records) for change in burst]
    events = [from_change(change, IDS) for change in changes]
    texts = [from_change(change, IDS).to_json() for change in changes]
    images = [(e.full_document_before_change, e.full_document) for e in events if e.event_type == "update"]
    pairs = [(before.data, after.data) for before, after in images if before and after]
    return {
        f"{plugin} decode": lambda count: _decoded(plugin, frames if count > CHANGES else some_frames),
        f"{plugin} assemble": lambda count: _assembled(records if count > CHANGES else some_records),
        f"{plugin} read": lambda count: _each(changes[:count], read),
        "diff": lambda count: _diffs(pairs[: count // 2]),
        f"{plugin} to_json": lambda count: _each(changes[:count], ChangeEvent.to_json),
        f"{plugin} to_dict": lambda count: _each(changes[:count], ChangeEvent.to_dict),
        "from_json": lambda count: _each_text(texts[:count], ChangeEvent.from_json),
        "from_json read": lambda count: _each_text(texts[:count], lambda text: read(ChangeEvent.from_json(text))),
        "orjson.loads": lambda count: _each_text(texts[:count], orjson.loads),
    }


def _bursts(frames: list[bytes]) -> list[list[bytes]]:
    return [frames[start : start + A_BURST] for start in range(0, len(frames), A_BURST)]


def _decoded(plugin: str, bursts: list[list[bytes]]) -> list[list[Record]]:
    decoder = PLUGINS[plugin].decoder(SCHEMA)
    return [decoder.decode(burst) for burst in bursts]


def _assembled(bursts: list[list[Record]]) -> list[list[Change]]:
    assembler = Assembler(0, Registry(SCHEMA, [Span(OID, SCHEMA, TABLE, 0, None)]))
    return [assembler.feed(burst).changes for burst in bursts]


def changes_of(plugin: str, count: int) -> list[Change]:
    bursts = _assembled(_decoded(plugin, _bursts(FRAMES[plugin](count))))
    return [change for burst in bursts for change in burst]


def _each(changes: list[Change], use: Callable[[ChangeEvent], object]) -> None:
    for change in changes:
        use(from_change(change, IDS))


def _each_text(texts: list[bytes], use: Callable[[bytes], object]) -> None:
    for text in texts:
        use(text)


def read(event: ChangeEvent) -> None:
    """Read all that a change of a document has."""
    event.event_type  # noqa: B018
    event.collection  # noqa: B018
    event.document_id  # noqa: B018
    for document in (event.full_document, event.full_document_before_change):
        if document is not None:
            document.data  # noqa: B018
            document.version  # noqa: B018
            document.created_at  # noqa: B018
            document.updated_at  # noqa: B018
    event.update_description  # noqa: B018
    event.timestamp  # noqa: B018
    event.transaction_id  # noqa: B018
    event.metadata  # noqa: B018
    str(event.resume_token)


def _diffs(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for before, after in pairs:
        diff(before, after)


def reference(rounds: int) -> None:
    """Do what such code does (search, cut, parse, store, format, call), without pgdoc. Never change it."""
    for number in range(rounds):
        line = b"id=%d;name=%x;total=%d;status=new;note=;tags=a,b,c" % (number, number * 7_919, number * 3)
        fields = {}
        for part in line.split(b";"):
            end = part.find(b"=")
            fields[part[:end].decode()] = part[end + 1 :].decode()
        item = _Item(fields)
        texts = [f"{name}: {value}" for name, value in fields.items() if value != item.name]
        item.total += len("\n".join(texts)) if isinstance(item.tags, list) else 0


class _Item:
    def __init__(self, fields: dict[str, str]) -> None:
        self.name = fields["name"]
        self.total = int(fields["total"])
        self.tags = [self.tag(each) for each in fields.get("tags", "").split(",")]

    def tag(self, text: str) -> tuple[str, int]:
        return text, self.total


if __name__ == "__main__":
    sys.exit(main())
