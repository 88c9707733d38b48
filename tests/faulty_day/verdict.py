"""Compare what streams and consumers received with the reference slot."""

from __future__ import annotations

import contextlib
import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
from psycopg import sql

from tests.faulty_day import notebook
from tests.faulty_day.digest import Fact
from tests.faulty_day.plan import BOOKS, COLLECTIONS, COUNTED, MARKS, POISONOUS, SCHEMA, SHOP, TABLES, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOT = "reference"
_PAGE = 2_000
_READ = """
SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, %s,
  'format-version', '2', 'add-tables', %s, 'filter-tables', %s,
  'add-msg-prefixes', 'pgdoc', 'include-lsn', '1', 'include-types', '0')
"""
_SHOWN = 3

Delivered = list[tuple[int, int, float]]
"""The delivered events: digest, life, and time of delivery."""

Tables = dict[tuple[str, str], list[Any]]


class Reference:
    """Every change in commit order, as the server reports it through a slot created before the first write."""

    def __init__(self, conninfo: str) -> None:
        self.digests = array("q")
        self._about: list[tuple[str, str | None]] = []
        self.tables: Tables = {}
        self.transactions: dict[tuple[int, int], int] = {}
        self._texts: dict[int, str] = {}
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for fact in _facts(_messages(connection)):
                self._take(fact)

    def _take(self, fact: Fact) -> None:
        self.digests.append(fact.digest)
        self._about.append((fact.collection, fact.document_id))
        self._texts[fact.digest] = str(fact)
        if "writer" in fact.metadata:
            self.transactions[fact.metadata["writer"], fact.metadata["number"]] = fact.commit_lsn
        if fact.kind == "truncate":
            self.tables = {key: image for key, image in self.tables.items() if key[0] != fact.collection}
            return
        assert fact.document_id is not None
        key = (fact.collection, fact.document_id)
        if fact.after is None:
            del self.tables[key]
        else:
            self.tables[key] = fact.after

    def of(self, wanted: Wanted) -> list[int]:
        """Return the digests of the events that must be received."""
        return [digest for digest, about in zip(self.digests, self._about, strict=True) if wanted.has(*about)]

    def describe(self, digest: int) -> str:
        """Return an event as text."""
        return self._texts.get(digest, f"an event that is not in the reference ({digest})")

    def check(self, conninfo: str) -> list[str]:
        """Check the reference itself against the ledger and the tables; return the differences."""
        wrong = []
        with psycopg.connect(conninfo) as connection:
            ledger = set(connection.execute(f"SELECT writer, number FROM {BOOKS}.ledger").fetchall())
        if ledger != self.transactions.keys():
            wrong.append(
                f"transactions only in the ledger or only in the WAL: {sorted(ledger ^ self.transactions.keys())[:9]}"
            )
        if read_tables(conninfo) != self.tables:
            wrong.append("the changes of the reference do not produce the tables")
        if len(self._texts) != len(self.digests):
            wrong.append("two events of the reference have the same digest")
        return wrong


def _messages(connection: psycopg.Connection[Any]) -> Iterator[dict[str, Any]]:
    """Read the slot page by page; each page ends at the end of a transaction."""
    while True:
        rows = connection.execute(_READ, [SLOT, _PAGE, f"{SCHEMA}.*,{SHOP}.*", f"{SCHEMA}.{POISONOUS}"]).fetchall()
        if not rows:
            return
        for (data,) in rows:
            yield orjson.loads(data.decode(errors="replace"))  # messages of a vandal need not be text


def _facts(messages: Iterator[dict[str, Any]]) -> Iterator[Fact]:
    commit_lsn = 0
    metadata: dict[str, Any] = {}
    for message in messages:
        match message["action"]:
            case "B":
                commit_lsn, metadata = _lsn(message["lsn"]), {}
            case "M":
                with contextlib.suppress(ValueError, RecursionError, AttributeError):  # a vandal's, which has no rows
                    metadata = json.loads(message["content"]).get("metadata", metadata)
            case "I" | "U" | "D" | "T" if _name(message) in COUNTED:
                yield from _facts_of(message, commit_lsn, metadata)


def _name(message: dict[str, Any]) -> str:
    schema, table = message["schema"], str(message["table"])
    return table if schema == SCHEMA else f"{schema}.{table}"


def _facts_of(message: dict[str, Any], commit_lsn: int, metadata: dict[str, Any]) -> Iterator[Fact]:
    """Yield the event of a message; two if an update of a table has changed its key."""
    after, before = (
        {column["name"]: column["value"] for column in message.get(part, ())} for part in ("columns", "identity")
    )
    after = {**before, **after} if after else after  # an unchanged TOAST value is missing from the new row
    kind = {"I": "insert", "U": "update", "D": "delete", "T": "truncate"}[message["action"]]
    name, document_id = _name(message), (after or before).get("id")
    if name not in TABLES:
        if kind == "update" and after["replaced_version"] == after["version"]:
            kind = "replace"
        yield Fact(commit_lsn, kind, name, document_id, _image(after), _image(before), metadata)
        return
    new, columns = _parts(after)
    old, columns_before = _parts(before)
    if kind == "update" and after["id"] != before["id"]:
        yield Fact(commit_lsn, "delete", name, before["id"], None, old, metadata, columns_before)
        yield Fact(commit_lsn, "insert", name, document_id, new, None, metadata, columns)
    else:
        yield Fact(commit_lsn, kind, name, document_id, new, old, metadata, columns if after else columns_before)


def _image(row: dict[str, Any]) -> list[Any] | None:
    return [row["version"], orjson.loads(row["data"])] if row else None


def _parts(row: dict[str, Any]) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Return the image of a table's row, and its columns beside the document."""
    if not row:
        return None, None
    if "payload" not in row:
        return [None, row], None
    payload = row["payload"]
    others = {name: value for name, value in row.items() if name != "payload"}
    return [None, orjson.loads(payload) if isinstance(payload, str) else payload], others


def _lsn(text: str) -> int:
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def read_tables(conninfo: str) -> Tables:
    """Return the documents of all collections, and the rows of all tables."""
    tables: Tables = {}
    query = sql.SQL("SELECT id, version, data::text FROM {}")
    with psycopg.connect(conninfo) as connection:
        for name in (*COLLECTIONS, MARKS):
            for document_id, version, data in connection.execute(query.format(sql.Identifier(SCHEMA, name))):
                tables[name, document_id] = [version, orjson.loads(data)]
        for name in TABLES:
            rows = connection.execute(f"SELECT to_jsonb(t) FROM {name} t".encode())
            for (row,) in rows:
                image, _ = _parts(row)
                assert image is not None
                tables[name, row["id"]] = image
    return tables


@dataclass
class StreamReport:
    """The result of one stream or consumer.

    Attributes:
        events: Number of distinct events that it received.
        losses: Number of events of the reference that it did not receive.
        repeats: Number of events that it received again.
        lives: How often it was opened.
        furthest_repeat_s: The longest time between the first and a repeated delivery of an event.
        wrong: The errors, as text.
    """

    name: str
    events: int = 0
    losses: int = 0
    repeats: int = 0
    lives: int = 0
    furthest_repeat_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def judge(
    reference: Reference,
    path: Path,
    wanted: Wanted,
    *,
    repeats: bool,
    audit: Delivered | None,
) -> StreamReport:
    """Compare what a stream or consumer received with the reference.

    Args:
        reference: All events.
        path: The path of its notebook.
        wanted: The events that it must receive.
        repeats: Whether a new life may start with events that an earlier one received.
        audit: The events that it received, if they are not in the notebook.
    """
    report = StreamReport(path.stem)
    ((report.lives, done, error),) = notebook.read(path, "SELECT life, done, error FROM place") or [(0, 0, None)]
    if error:
        report.wrong.append(error)
    if not done:
        report.wrong.append("it did not reach the end mark")
    delivered = notebook.read(path, "SELECT digest, life, at FROM event ORDER BY number") if audit is None else audit
    _compare(reference, report, reference.of(wanted), delivered, repeats=repeats)
    if not repeats and audit is None:
        _compare_tables(reference, report, path, wanted)
    return report


def _compare(
    reference: Reference, report: StreamReport, wanted: list[int], delivered: Delivered, *, repeats: bool
) -> None:
    """Check the order of delivery. With `repeats`, the first event of a new life may be an earlier one again."""
    indexes = {digest: number for number, digest in enumerate(wanted)}
    seen: dict[int, float] = {}
    for digest, _, at in delivered:
        report.furthest_repeat_s = max(report.furthest_repeat_s, at - seen.setdefault(digest, at))
    report.events = len(seen.keys() & indexes.keys())
    report.losses = len(indexes.keys() - seen.keys())
    report.repeats = len(delivered) - len(seen)
    following: dict[int, int] = {}  # index of the next expected event, for each life
    furthest = 0
    for number, (digest, life, _) in enumerate(delivered):
        index = indexes.get(digest, -1)
        fine = index == following.get(life, furthest) or (repeats and life not in following and 0 <= index < furthest)
        if not fine:
            expected = following.get(life, furthest)
            due = reference.describe(wanted[expected]) if expected < len(wanted) else "nothing"
            report.wrong.append(
                f"event {number}, life {life}: got {reference.describe(digest)} (index {index}), expected {due} "
                f"(index {expected})"
            )
            if len(report.wrong) >= _SHOWN:
                return
        following[life] = index + 1
        furthest = max(furthest, index + 1)
    if furthest < len(wanted):
        report.wrong.append(f"no event after the first {furthest}: expected {reference.describe(wanted[furthest])}")


def _compare_tables(reference: Reference, report: StreamReport, path: Path, wanted: Wanted) -> None:
    held = {
        (collection, document_id): orjson.loads(image)
        for collection, document_id, image in notebook.read(path, "SELECT collection, id, image FROM document")
    }
    real = {key: image for key, image in reference.tables.items() if wanted.has(*key)}
    if held != real:
        different = [key for key in held.keys() | real.keys() if held.get(key) != real.get(key)]
        report.wrong.append(f"{len(different)} documents differ from the tables: {different[:_SHOWN]}")
