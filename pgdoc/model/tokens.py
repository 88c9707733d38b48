"""Places in the WAL: `Lsn`, `Position`, `ResumeToken`; and how far a snapshot has come, `Progress`."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from functools import total_ordering
from typing import NamedTuple

from pgdoc.errors import InvalidResumeToken
from pgdoc.model.positions import Lsn, Position

_TOKEN = re.compile(
    r"(?P<commit>[0-9A-F]{1,8}/[0-9A-F]{1,8})"
    r"(?:\.(?P<lsn>[0-9A-F]{1,8}/[0-9A-F]{1,8})\.(?P<kind>[01])\.(?P<ordinal>[0-9]{1,17}))?"
    r"(?:\.s(?P<progress>[A-Za-z0-9_-]+))?"
    r"\.(?P<system>[0-9]{1,20})\.(?P<timeline>[0-9]{1,10})"
)
_PROGRESS_LIMIT = 1 << 20


class Progress(NamedTuple):
    """How far the snapshot of a stream has come.

    Attributes:
        left: the collections of which not all documents were given, in the order in which they are; none at the end.
        document_id: of the first of them, the last document that was given; empty where none was.
        of: tells the collections of the stream from others.
        given: how many documents were.
    """

    left: tuple[str, ...]
    document_id: str
    of: str
    given: int

    def __str__(self) -> str:
        text = json.dumps([*self], ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(zlib.compress(text, 9)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Progress:
        """Read what `str` gave.

        Raises:
            ValueError: it did not.
        """
        inflate = zlib.decompressobj()
        try:
            raw = inflate.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), _PROGRESS_LIMIT)
            left, document_id, of, given = json.loads(raw)
        except (zlib.error, TypeError) as exc:
            raise ValueError(str(exc)) from exc
        texts = [*left, document_id, of] if isinstance(left, list) else [None]
        if not all(isinstance(text, str) for text in texts) or not isinstance(given, int):
            raise ValueError("it is something else")
        return cls(tuple(left), document_id, of, given)


class Mark(NamedTuple):
    """How far a durable consumer has come; marks are compared by their places.

    Attributes:
        place: as a `Position`; inside a snapshot followed by how many of its documents were given.
        snapshot: how far that had come there; empty where it has to begin, `None` where there is none, or it is over.
    """

    place: tuple[int, ...] = (0, 0, 0, 0)
    snapshot: Progress | str | None = None

    @classmethod
    def at(cls, place: tuple[int, ...], progress: Progress | None) -> Mark:
        """Make the mark of an event."""
        if progress is None:
            return cls(place)
        return cls((*place, progress.given), progress if progress.left else None)

    @property
    def text(self) -> str | None:
        """The snapshot as it is stored."""
        return None if self.snapshot is None else str(self.snapshot)


@total_ordering
@dataclass(frozen=True, slots=True)
class ResumeToken:
    """A place in the stream of all changes: of an event, or between two transactions.

    Tokens order as the events do. They depend on nothing but the WAL: not on the filter, the collections, the plugin
    or the process that issued them. Only those from inside a snapshot tell how far that has come, in `progress`.
    """

    position: Position
    system_id: int
    timeline: int
    progress: Progress | None = None

    @property
    def is_inside(self) -> bool:
        """Whether it is from inside a snapshot, which is to be gone on with."""
        return self.progress is not None and bool(self.progress.left)

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
        if found["lsn"] and not position.lsn:
            raise InvalidResumeToken(f"{text!r} is not a resume token: nothing stands at 0/0")
        try:
            progress = Progress.parse(found["progress"]) if found["progress"] else None
        except ValueError as exc:
            raise InvalidResumeToken(f"{text!r} is not a resume token: a part of it is damaged") from exc
        return cls(position, int(found["system"]), int(found["timeline"]), progress)

    def __str__(self) -> str:
        commit_lsn, lsn, kind, ordinal = self.position
        place = f".{Lsn(lsn)}.{kind}.{ordinal}" if lsn else ""
        inside = f".s{self.progress}" if self.progress else ""
        return f"{Lsn(commit_lsn)}{place}{inside}.{self.system_id}.{self.timeline}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ResumeToken):
            return NotImplemented
        return self._order < other._order

    @property
    def _order(self) -> tuple[Position, tuple[bool, int], int, int]:
        inside = (self.progress is None, self.progress.given if self.progress else 0)
        return self.position, inside, self.timeline, self.system_id
