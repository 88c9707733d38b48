"""Positions of changes in the WAL.

A position is `(commit LSN, LSN, kind, ordinal)`. Positions compare as tuples, in the order of the events:

- the commit LSN orders transactions as the server sends them;
- the LSN of the change's own WAL record orders the changes of a transaction;
- the kind orders a logical message before a row of the same LSN;
- the ordinal counts the rows of one record, since a COPY packs many rows into one. The tables of one TRUNCATE share a
  record too; their ordinals are made from their names (`pgdoc.changes.assembler`).

A position whose LSN is 0 lies between transactions: before every change of those that commit at its commit LSN or
later.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pgdoc.errors import InvalidResumeToken

RawPosition = tuple[int, int, int, int]
"""A `Position` as a bare tuple. One is made for each change: it takes a tenth of the time and compares the same."""

Ids = tuple[int, int, int | None]
"""Whose positions they are: the cluster's system identifier, its timeline, and the oid of the database.

The oid is `None` if it is not known: tokens of earlier versions lack it.
"""

MESSAGE: Final = 0
ROW: Final = 1
"""The kinds of a position: a logical message, and a row."""

BEFORE_ALL: Final[RawPosition] = (0, 0, 0, 0)
"""The position before every change."""


class Position(NamedTuple):
    """The position of one change, or between two transactions; see the module."""

    commit_lsn: int
    lsn: int = 0
    kind: int = MESSAGE
    ordinal: int = 0


def commit_lsn_of(position: RawPosition | Position) -> int:
    """Return the LSN of the transaction's commit record."""
    return position[0]


def before_commits_at(lsn: int) -> RawPosition:
    """Return the position before every transaction that commits at `lsn` or later."""
    return (lsn, 0, MESSAGE, 0)


def is_collection_event(position: RawPosition | Position) -> bool:
    """Return whether the change at this position created, renamed or dropped a collection.

    Only such a change, which is read from a message, can take a stream's last collection and so end it.
    """
    _, lsn, kind, _ = position
    return lsn != 0 and kind == MESSAGE


def just_after(position: RawPosition | Position) -> RawPosition:
    """Return the position of the `invalidate` that the collection event at `position` can cause."""
    commit_lsn, lsn, kind, ordinal = position
    return (commit_lsn, lsn, kind, ordinal + 1)


def just_before(position: RawPosition | Position) -> RawPosition:
    """Return the position from which the change at `position` is delivered next."""
    commit_lsn, lsn, kind, ordinal = position
    return (commit_lsn, lsn, kind, ordinal - 1)


def resume_point(position: RawPosition | Position) -> RawPosition:
    """Return the position after which a stream that resumes at `position` reads.

    A collection event is read again, since it may have ended the stream: its `invalidate` would come next.
    """
    return just_before(position) if is_collection_event(position) else position


_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A location in the WAL, in bytes. Its text is PostgreSQL's `pg_lsn`, such as `16/B374D848`."""

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Parse text such as `16/B374D848`.

        Raises:
            InvalidResumeToken: the text is not an LSN.
        """
        found = _LSN.fullmatch(text)
        if found is None:
            raise InvalidResumeToken(
                f"{text!r} is not an LSN: use two hexadecimal numbers with a slash, such as 16/B374D848"
            )
        return cls((int(found[1], 16) << 32) | int(found[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"
