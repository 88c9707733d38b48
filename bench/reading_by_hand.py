"""CPU time to read a change, beside the same reading written by hand, and what the rest of the time is for.

    python -m bench reading_by_hand

By hand means the same slices, calls of orjson and dicts, for messages of exactly this shape: without a check, and
without an object. The changes are those of `bench.messages`, half inserts and half updates, ten in a transaction. No
server takes part. All take turns, and the round with the least CPU time counts.
"""

from __future__ import annotations

import struct
import time
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from bench.arguments import parser_of, positive
from bench.counted import IDS, changes_of
from bench.rates import read_all_fields
from pgdoc.changes.diff import diff
from pgdoc.changes.events import ChangeEvent, from_change
from pgdoc.changes.row_images import columns_of, other_columns, time_of
from pgdoc.decoding.frames import PAYLOAD
from pgdoc.model.documents import Document, Origin, document_of_image
from pgdoc.model.json_codec import decode
from pgdoc.model.stored_times import moment_of
from pgdoc.model.tokens import token_at, token_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.changes.change import Change

    Row = tuple[str, bytes | str, bytes]  # the id, the text of the data, and what follows it
    Step = Callable[[Change], object]

CHANGES = 400
ORIGIN = Origin("orders", other_columns)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=positive, default=60)
    rounds: int = parser.parse_args().rounds
    print(f"us of CPU for a change\n{'':34} {'pgdoc':>7} {'by hand':>8} {'ratio':>6}")
    for plugin, hand in HANDS.items():
        changes = changes_of(plugin, CHANGES)
        ways: dict[str, Step] = {}
        for name, use in USES.items():
            ways[f"{plugin}, {name}"] = partial(_use, use)
            ways[f"{plugin}, {name}, by hand"] = partial(BY_HAND[name], hand)
        least = least_us(ways, changes, rounds)
        for name in USES:
            own, by_hand = least[f"{plugin}, {name}"], least[f"{plugin}, {name}, by hand"]
            print(f"{plugin + ', ' + name:34} {own:7.2f} {by_hand:8.2f} {own / by_hand:6.2f}")
    print(f"\nus of CPU for a step of an update, wal2json\n{'':34} {'pgdoc':>7} {'by hand':>8}  the rest is for")
    updates = [change for change in changes_of("wal2json", 2 * CHANGES) if change.row.kind == "U"]
    for name, step in steps(updates).items():
        least = least_us({"pgdoc": step.pgdoc, "by hand": step.by_hand}, updates, rounds)
        print(f"{name:34} {least['pgdoc']:7.2f} {least['by hand']:8.2f}  {step.purpose}")
    return 0


def least_us(ways: Mapping[str, Step], changes: list[Change], rounds: int) -> dict[str, float]:
    """Return the least CPU time of each way for a change, without that of an empty loop."""
    least = dict.fromkeys(["", *ways], float("inf"))
    for _ in range(rounds):
        for name, way in {"": _nothing, **ways}.items():
            began = time.thread_time_ns()
            for change in changes:
                way(change)
            least[name] = min(least[name], (time.thread_time_ns() - began) / 1000 / len(changes))
    empty = least.pop("")
    return {name: us - empty for name, us in least.items()}


def _nothing(_change: Change) -> None:
    pass


def _use(use: Callable[[ChangeEvent], object], change: Change) -> None:
    use(from_change(change, IDS))


USES: dict[str, Callable[[ChangeEvent], object]] = {
    "document_id": lambda event: event.document_id,
    "all fields read": read_all_fields,
    "to_json()": ChangeEvent.to_json,
    "to_dict()": ChangeEvent.to_dict,
}


class Hand(NamedTuple):
    """How a plugin's message is taken apart by hand.

    Attributes:
        row: returns the row after the change and before it.
        rest: returns the version and both times from what follows the data.
    """

    row: Callable[[bytes], tuple[Row, Row | None]]
    rest: Callable[[bytes], tuple[int, str, str]]


DATA, VERSION = b'},{"name":"data","value":', b'},{"name":"version","value":'
IDENTITY, VALUE, UPDATED_AT = (
    b'"}],"identity":[{"name":"id","value":',
    b'"value":',
    b'"},{"name":"updated_at","value":"',
)
TIME = len("2026-11-29 07:08:51.817473+00")


def wal2json_row(message: bytes) -> tuple[Row, Row | None]:
    head, middle, *last = message.split(DATA)
    data, _, rest = middle.partition(VERSION)
    id_ = orjson.loads(head.rpartition(VALUE)[2])
    if not last:
        return (id_, orjson.loads(data), rest[:-4]), None
    rest, _, old_id = rest.rpartition(IDENTITY)
    old_data, _, old_rest = last[0].partition(VERSION)
    return (id_, orjson.loads(data), rest), (orjson.loads(old_id), orjson.loads(old_data), old_rest[:-4])


def wal2json_rest(rest: bytes) -> tuple[int, str, str]:
    created_at = -2 * TIME - len(UPDATED_AT)
    return int(rest.partition(b"}")[0]), rest[created_at : created_at + TIME].decode(), rest[-TIME:].decode()


size_at = struct.Struct(">I").unpack_from


def pgoutput_row(message: bytes) -> tuple[Row, Row | None]:
    if message[PAYLOAD] == ord("I"):
        return pgoutput_image(message, PAYLOAD + 9, len(message)), None
    end = message.find(b"N\0\6t", PAYLOAD + 9)
    return pgoutput_image(message, end + 4, len(message)), pgoutput_image(message, PAYLOAD + 9, end)


def pgoutput_image(message: bytes, at: int, end: int) -> Row:
    data = at + 4 + size_at(message, at)[0]
    rest = data + 5 + size_at(message, data + 1)[0]
    return message[at + 4 : data].decode(), message[data + 5 : rest], message[rest:end]


def pgoutput_rest(rest: bytes) -> tuple[int, str, str]:
    return int(rest[5 : 5 + rest[4]]), rest[-2 * TIME - 5 : -TIME - 5].decode(), rest[-TIME:].decode()


HANDS = {"wal2json": Hand(wal2json_row, wal2json_rest), "pgoutput": Hand(pgoutput_row, pgoutput_rest)}


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Compare the fields as Python does, at the top only."""
    return {
        "updated_fields": {key: value for key, value in new.items() if old.get(key) != value},
        "removed_fields": [key for key in old if key not in new],
        "truncated_arrays": [],
        "disambiguated_paths": {},
    }


def id_by_hand(hand: Hand, change: Change) -> object:
    return hand.row(change.row.message)[0][0]


def fields_by_hand(hand: Hand, change: Change) -> dict[str, Any]:
    position, transaction, row = change
    new, old = hand.row(row.message)
    after, before = orjson.loads(new[1]), orjson.loads(old[1]) if old else None
    return {
        "event_type": "update" if old else "insert",
        "document_id": new[0],
        "full_document": after,
        "full_document_before_change": before,
        "update_description": None if before is None else difference(before, after),
        "resume_token": (position, IDS),
        "timestamp": moment(transaction.timestamp),
        "metadata": {},
    }


@lru_cache(maxsize=16)
def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def document_by_hand(hand: Hand, row: Row, data: object) -> dict[str, Any]:
    version, created_at, updated_at = hand.rest(row[2])
    return {
        "id": row[0],
        "data": data,
        "version": version,
        "created_at": iso(created_at),
        "updated_at": iso(updated_at),
    }


def iso(text: str) -> str:
    return f"{text[:10]}T{text[11:26]}+00:00"


def dict_by_hand(hand: Hand, change: Change, *, as_json: bool = False) -> dict[str, Any]:
    position, transaction, row = change
    new, old = hand.row(row.message)
    after = None if as_json and old is None else orjson.loads(new[1])
    before = orjson.loads(old[1]) if old else None
    form = orjson.Fragment if as_json else None
    return {
        "event_type": "update" if old else "insert",
        "collection": row.table,
        "document_id": new[0],
        "full_document": document_by_hand(hand, new, form(new[1]) if form else after),
        "full_document_before_change": document_by_hand(hand, old, form(old[1]) if form else before) if old else None,
        "update_description": None if before is None or after is None else difference(before, after),
        "resume_token": token_by_hand(position),
        "timestamp": iso(transaction.timestamp),
        "transaction_id": transaction.xid,
        "metadata": {},
        "renamed_to": None,
    }


def token_by_hand(position: tuple[int, ...]) -> str:
    commit, lsn, kind, ordinal = position
    return f"{commit >> 32:X}/{commit & 0xFFFFFFFF:X}.{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}.{kind}.{ordinal}.{_SUFFIX}"


_SUFFIX = ".".join(map(str, IDS))


def json_by_hand(hand: Hand, change: Change) -> bytes:
    return orjson.dumps(dict_by_hand(hand, change, as_json=True))


BY_HAND: dict[str, Callable[[Hand, Change], object]] = {
    "document_id": id_by_hand,
    "all fields read": fields_by_hand,
    "to_json()": json_by_hand,
    "to_dict()": dict_by_hand,
}


class Compared(NamedTuple):
    """A step of reading, and what the rest of its time is for."""

    pgdoc: Step
    by_hand: Step
    purpose: str


def steps(updates: list[Change]) -> dict[str, Compared]:
    """Return the steps of reading an update. Each gets what the steps before it make of the change."""
    hand = HANDS["wal2json"]
    images = {change.row.lsn: change.row.images() for change in updates}
    rows = {change.row.lsn: change.row.read(change.row.message) for change in updates}
    by_hand = {change.row.lsn: hand.row(change.row.message)[0] for change in updates}
    texts = {lsn: after["data"] for lsn, (after, _) in images.items()}
    pairs = {lsn: (decode(before["data"]), decode(after["data"])) for lsn, (after, before) in images.items()}
    return {
        "take the message apart": Compared(
            lambda change: change.row.read(change.row.message),
            lambda change: hand.row(change.row.message),
            "refusing damaged messages, and noticing rows of another shape",
        ),
        "version and times of an image": Compared(
            lambda change: columns_of(rows[change.row.lsn].after, "orders"),
            lambda change: hand.rest(by_hand[change.row.lsn][2]),
            "rows of another shape; the rows of a transaction share the values",
        ),
        "decode the data of a document": Compared(
            lambda change: decode(texts[change.row.lsn]),
            lambda change: orjson.loads(texts[change.row.lsn]),
            "integers of more than 64 bits, which orjson would round",
        ),
        "the difference": Compared(
            lambda change: diff(*pairs[change.row.lsn]),
            lambda change: difference(*pairs[change.row.lsn]),
            "changes inside of fields, and telling true from 1",
        ),
        "make a document": Compared(
            lambda change: _document(rows[change.row.lsn].after),
            lambda change: {"id": "", "data": texts[change.row.lsn]},
            "decoding only what is read, and errors that name the document",
        ),
        "make the token": Compared(
            lambda change: token_at(change.position, IDS),
            lambda change: (change.position, IDS),
            "an object that compares, in the order of the events",
        ),
        "write the token": Compared(
            lambda change: token_text(change.position, IDS),
            lambda change: token_by_hand(change.position),
            "the tokens of snapshots; what a transaction shares is written once",
        ),
        "the timestamp": Compared(
            lambda change: moment_of(time_of(change.transaction, images[change.row.lsn].after["updated_at"])),
            lambda change: moment(change.transaction.timestamp),
            "replicated transactions that come without a time, or with a wrong one",
        ),
        "make an event, and read one field": Compared(
            lambda change: from_change(change, IDS).transaction_id,
            lambda change: {"_change": change}["_change"].transaction.xid,
            "computing only the fields that are read",
        ),
    }


def _document(image: Any) -> Document:
    return document_of_image(image["id"], image["data"], image[""], ORIGIN)


if __name__ == "__main__":
    raise SystemExit(main())
