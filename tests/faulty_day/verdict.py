"""What the day was really like, and whether everyone tells it so."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import psycopg
from psycopg import sql

from tests.faulty_day import notebook
from tests.faulty_day.digest import Fact
from tests.faulty_day.plan import BOOKS, COLLECTIONS, MARKS, SCHEMA, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOT = "reference"
_PAGE = 2_000
_READ = """
SELECT data FROM pg_logical_slot_get_changes(%s, NULL, %s,
  'format-version', '2', 'add-tables', %s, 'add-msg-prefixes', 'pgdoc', 'include-lsn', '1', 'include-types', '0')
"""
_SHOWN = 3

Got = list[tuple[int, int, float]]
"""What was given: digest, life, and when."""

Tables = dict[tuple[str, str], list[Any]]


class Reference:
    """The server's own account: every change in commit order, from a slot that was there before the day."""

    def __init__(self, conninfo: str) -> None:
        self.digests = array("q")
        self._about: list[tuple[str, str | None]] = []
        self.tables: Tables = {}
        self.transactions: dict[tuple[int, int], int] = {}
        self._words: dict[int, str] = {}
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for fact in _facts(_messages(connection)):
                self._take(fact)

    def _take(self, fact: Fact) -> None:
        self.digests.append(fact.digest)
        self._about.append((fact.collection, fact.document_id))
        self._words[fact.digest] = str(fact)
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
        """The digests that a stream that wants this must have."""
        return [digest for digest, about in zip(self.digests, self._about, strict=True) if wanted.has(*about)]

    def say(self, digest: int) -> str:
        """An event in words."""
        return self._words.get(digest, f"an event that nobody wrote ({digest})")

    def check(self, conninfo: str) -> list[str]:
        """Give what is wrong with the reference itself: it must tell what the ledger and the tables do."""
        wrong = []
        with psycopg.connect(conninfo) as connection:
            ledger = set(connection.execute(f"SELECT writer, number FROM {BOOKS}.ledger").fetchall())
        if ledger != self.transactions.keys():
            wrong.append(f"transactions in the ledger or the WAL only: {sorted(ledger ^ self.transactions.keys())[:9]}")
        if read_tables(conninfo) != self.tables:
            wrong.append("the reference's changes do not give the tables")
        if len(self._words) != len(self.digests):
            wrong.append("two events of the reference have the same digest")
        return wrong


def _messages(connection: psycopg.Connection[Any]) -> Iterator[dict[str, Any]]:
    """Page through the slot; a page ends with a transaction."""
    while True:
        rows = connection.execute(_READ, [SLOT, _PAGE, f"{SCHEMA}.*"]).fetchall()
        if not rows:
            return
        for (data,) in rows:
            yield orjson.loads(data)


def _facts(messages: Iterator[dict[str, Any]]) -> Iterator[Fact]:
    commit_lsn = 0
    metadata: dict[str, Any] = {}
    for message in messages:
        match message["action"]:
            case "B":
                commit_lsn, metadata = _lsn(message["lsn"]), {}
            case "M":
                metadata = json.loads(message["content"]).get("metadata", metadata)
            case "I" | "U" | "D" | "T":
                yield _fact(message, commit_lsn, metadata)


def _fact(message: dict[str, Any], commit_lsn: int, metadata: dict[str, Any]) -> Fact:
    after, before = (
        {column["name"]: column["value"] for column in message.get(part, ())} for part in ("columns", "identity")
    )
    after = {**before, **after} if after else after  # what TOAST left out is as it was
    kind = {"I": "insert", "U": "update", "D": "delete", "T": "truncate"}[message["action"]]
    if kind == "update" and after["replaced_version"] == after["version"]:
        kind = "replace"
    document_id = (after or before).get("id")
    return Fact(commit_lsn, kind, message["table"], document_id, _image(after), _image(before), metadata)


def _image(row: dict[str, Any]) -> list[Any] | None:
    return [row["version"], orjson.loads(row["data"])] if row else None


def _lsn(text: str) -> int:
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def read_tables(conninfo: str) -> Tables:
    """What is in the collections."""
    tables: Tables = {}
    query = sql.SQL("SELECT id, version, data::text FROM {}")
    with psycopg.connect(conninfo) as connection:
        for name in (*COLLECTIONS, MARKS):
            for document_id, version, data in connection.execute(query.format(sql.Identifier(SCHEMA, name))):
                tables[name, document_id] = [version, orjson.loads(data)]
    return tables


@dataclass
class Account:
    """What became of one stream or consumer.

    Attributes:
        events: different ones that it was given.
        losses: events of the reference that it was not given.
        repeats: events that it was given again.
        lives: how often it was opened.
        furthest_repeat_s: how long ago the oldest event that was given again had been given first.
        wrong: what must not be, in words.
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
    audit: Got | None,
) -> Account:
    """Compare what a stream was given with the reference.

    Args:
        reference: what was to be read.
        path: of its notebook.
        wanted: what it read.
        repeats: whether another life may begin with what the one before it was given.
        audit: what it was given, where that does not stand in the notebook.
    """
    account = Account(path.stem)
    ((account.lives, done, error),) = notebook.read(path, "SELECT life, done, error FROM place") or [(0, 0, None)]
    if error:
        account.wrong.append(error)
    if not done:
        account.wrong.append("it did not come to the end")
    got = notebook.read(path, "SELECT digest, life, at FROM event ORDER BY number") if audit is None else audit
    _compare(reference, account, reference.of(wanted), got, repeats=repeats)
    if not repeats and audit is None:
        _compare_tables(reference, account, path, wanted)
    return account


def _compare(reference: Reference, account: Account, wanted: list[int], got: Got, *, repeats: bool) -> None:
    """Walk through what was given; only the first of another life may lie before the one that is next in order."""
    places = {digest: number for number, digest in enumerate(wanted)}
    seen: dict[int, float] = {}
    for digest, _, at in got:
        account.furthest_repeat_s = max(account.furthest_repeat_s, at - seen.setdefault(digest, at))
    account.events = len(seen.keys() & places.keys())
    account.losses = len(places.keys() - seen.keys())
    account.repeats = len(got) - len(seen)
    following: dict[int, int] = {}  # the next place in the order, for each life
    furthest = 0
    for number, (digest, life, _) in enumerate(got):
        place = places.get(digest, -1)
        fine = place == following.get(life, furthest) or (repeats and life not in following and 0 <= place < furthest)
        if not fine:
            expected = following.get(life, furthest)
            due = reference.say(wanted[expected]) if expected < len(wanted) else "nothing"
            account.wrong.append(
                f"event {number}, life {life}: {reference.say(digest)} (place {place}) came instead of {due} "
                f"(place {expected})"
            )
            if len(account.wrong) >= _SHOWN:
                return
        following[life] = place + 1
        furthest = max(furthest, place + 1)
    if furthest < len(wanted):
        account.wrong.append(f"after {furthest} events nothing came: {reference.say(wanted[furthest])} was next")


def _compare_tables(reference: Reference, account: Account, path: Path, wanted: Wanted) -> None:
    held = {
        (collection, document_id): orjson.loads(image)
        for collection, document_id, image in notebook.read(path, "SELECT collection, id, image FROM document")
    }
    real = {key: image for key, image in reference.tables.items() if wanted.has(*key)}
    if held != real:
        different = [key for key in held.keys() | real.keys() if held.get(key) != real.get(key)]
        account.wrong.append(f"{len(different)} documents are not as in the tables: {different[:_SHOWN]}")
