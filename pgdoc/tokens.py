"""Places in the WAL: `Lsn`, `Position`, `ResumeToken`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import NamedTuple

from pgdoc.errors import InvalidResumeToken

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_TOKEN = re.compile(
    r"(?P<commit>[0-9A-F]{1,8}/[0-9A-F]{1,8})"
    r"(?:\.(?P<lsn>[0-9A-F]{1,8}/[0-9A-F]{1,8})\.(?P<kind>[01])\.(?P<ordinal>[0-9]{1,17}))?"
    r"\.(?P<system>[0-9]{1,20})\.(?P<timeline>[0-9]{1,10})"
)


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
    one TRUNCATE share a record, too; their ordinals are made from their names (`pgdoc.changes.assemble`).
    A position with nothing but a commit LSN lies before every change of the transactions that commit there or later.
    """

    commit_lsn: int
    lsn: int = 0
    kind: int = 0  # 0 a message, 1 a row
    ordinal: int = 0


@total_ordering
@dataclass(frozen=True, slots=True)
class ResumeToken:
    """A place in the stream of all changes: of an event, or between two transactions.

    Tokens order as the events do. They depend on nothing but the WAL: not on the filter, the collections, the plugin
    or the process that issued them.
    """

    position: Position
    system_id: int
    timeline: int

    @property
    def lsn(self) -> Lsn:
        """The LSN of the commit record of the transaction."""
        return Lsn(self.position.commit_lsn)

    @classmethod
    def parse(cls, text: str) -> ResumeToken:
        """Read what `str(token)` gave.

        Raises:
            InvalidResumeToken: the text is not a token.
        """
        found = _TOKEN.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidResumeToken(
                f"{text!r} is not a resume token: give `str(event.resume_token)`, or an LSN such as 16/B374D848"
            )
        position = Position(Lsn.parse(found["commit"]))
        if found["lsn"]:
            position = Position(position.commit_lsn, Lsn.parse(found["lsn"]), int(found["kind"]), int(found["ordinal"]))
        return cls(position, int(found["system"]), int(found["timeline"]))

    def __str__(self) -> str:
        commit_lsn, lsn, kind, ordinal = self.position
        place = f".{Lsn(lsn)}.{kind}.{ordinal}" if lsn else ""
        return f"{Lsn(commit_lsn)}{place}.{self.system_id}.{self.timeline}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ResumeToken):
            return NotImplemented
        return (self.position, self.timeline, self.system_id) < (other.position, other.timeline, other.system_id)
