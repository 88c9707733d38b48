"""Positions in the WAL: `Lsn`, `Position`, and the helpers that compare and derive them."""

from __future__ import annotations

import re
from typing import NamedTuple

from pgdoc.errors import InvalidResumeToken

RawPosition = tuple[int, int, int, int]
"""A `Position` as a bare tuple, which costs a tenth to make and compares alike."""


def just_before(place: RawPosition | Position) -> RawPosition:
    """Give a place after which the change at `place` is the next one, if there is one."""
    commit_lsn, lsn, kind, ordinal = place
    return (commit_lsn, lsn, kind, ordinal - 1)


def just_behind(place: RawPosition | Position) -> RawPosition:
    """Give the place that the invalidate has where the message at `place` takes the last collection."""
    commit_lsn, lsn, kind, ordinal = place
    return (commit_lsn, lsn, kind, ordinal + 1)


def is_message(place: RawPosition | Position) -> bool:
    """Tell whether a change at this place is one of a whole collection: the only ones that can take the last."""
    return bool(place[1]) and place[2] == 0


def before_commits_at(lsn: int) -> RawPosition:
    """Give the place before every change of the transactions that commit at `lsn` or later."""
    return (lsn, 0, 0, 0)


_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A place in the WAL, in bytes; prints as PostgreSQL does (`pg_lsn`)."""

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read `16/B374D848`.

        Raises:
            InvalidResumeToken: not an LSN.
        """
        found = _LSN.fullmatch(text)
        if found is None:
            raise InvalidResumeToken(
                f"{text!r} is not an LSN: two hexadecimal numbers with a slash, such as 16/B374D848"
            )
        return cls((int(found[1], 16) << 32) | int(found[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn('{self}')"


class Position(NamedTuple):
    """The place of one change; tuples compare as the events are ordered.

    The commit LSN orders transactions as the server sends them, the record's own LSN places a change inside its
    transaction, and ordinals count within one LSN and kind, since a COPY packs many rows in one record. The tables of
    one TRUNCATE share a record, too; their ordinals are made from their names (`pgdoc.changes.assembler`).
    A position with nothing but a commit LSN lies before every change of the transactions that commit there or later.
    """

    commit_lsn: int
    lsn: int = 0
    kind: int = 0  # 0 a message, 1 a row
    ordinal: int = 0
