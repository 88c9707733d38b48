"""What a stream or consumer resumes from: `ResumeToken`, `SnapshotProgress` and a consumer's `Mark`."""

from __future__ import annotations

import base64
import enum
import re
import zlib
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering
from struct import pack
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson

from pgdoc.errors import InvalidResumeToken
from pgdoc.model.positions import BEFORE_ALL, Lsn, Position

if TYPE_CHECKING:
    from pgdoc.model.positions import Ids, RawPosition

_TOKEN = re.compile(
    r"([0-9A-F]{1,8})/([0-9A-F]{1,8})"  # the commit LSN
    r"(?:\.([0-9A-F]{1,8})/([0-9A-F]{1,8})\.([01])\.([0-9]{1,17}))?"  # the LSN, the kind and the ordinal
    r"(?:\.s([A-Za-z0-9_-]+))?"  # the progress
    r"\.([0-9]{1,20}\.[0-9]{1,10}(?:\.[0-9]{1,10})?)"
)
_PROGRESS_LIMIT = 1 << 20
_MOST_DELIVERED = 1 << 62  # so that the sum with later documents can be written, too


class SnapshotProgress(NamedTuple):
    """How far the snapshot of a stream has come; part of the tokens issued inside it.

    Attributes:
        remaining: the collections that still have documents to deliver, in reading order. Empty when the snapshot is
            complete.
        document_id: the last document delivered of the first of them. Empty if none was.
        stream_digest: a digest of the stream's collections, by which a token of another stream is refused.
        delivered: how many documents were delivered.
    """

    remaining: tuple[str, ...]
    document_id: str
    stream_digest: str
    delivered: int

    def __str__(self) -> str:
        text = orjson.dumps(tuple(self))
        packed = _stored(text) if len(text) <= _SHORT else zlib.compress(text, 9)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> SnapshotProgress:
        """Parse the text that `str(progress)` returned; raise `ValueError` for any other."""
        inflate = zlib.decompressobj()
        try:
            raw = inflate.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), _PROGRESS_LIMIT)
            # orjson refuses what no stream writes: deep nesting, surrogates. A larger integer becomes a float.
            remaining, document_id, stream_digest, delivered = orjson.loads(raw)
        except (zlib.error, TypeError) as exc:
            raise ValueError(str(exc)) from exc
        texts = [*remaining, document_id, stream_digest] if isinstance(remaining, list) else [None]
        if not all(isinstance(text, str) for text in texts) or type(delivered) is not int:
            raise ValueError("not the progress of a snapshot")
        if not 0 <= delivered <= _MOST_DELIVERED:
            raise ValueError("no snapshot delivers so many documents")
        return cls(tuple(remaining), document_id, stream_digest, delivered)


_SHORT = 200
"""Texts up to this length are as short without compression, which takes ten times the time of all else in a token."""


def _stored(text: bytes) -> bytes:
    """Return what `zlib.decompress` turns into the text: one block that is not compressed."""
    return b"\x78\x01\x01%b%b%b" % (pack("<HH", len(text), len(text) ^ 0xFFFF), text, pack(">L", zlib.adler32(text)))


class SnapshotStage(enum.Enum):
    """Where a consumer's snapshot is when not in progress. The catalog stores the values."""

    NONE = None
    """There is no snapshot, or it is complete."""
    START = ""
    """The snapshot has yet to deliver its first document."""


SnapshotState: TypeAlias = SnapshotProgress | SnapshotStage
"""How far a consumer's snapshot has come."""


def parse_snapshot(text: str | None) -> SnapshotState:
    """Parse what `Mark.text` returned; raise `ValueError` for any other text."""
    return SnapshotProgress.parse(text) if text else SnapshotStage(text)


class Mark(NamedTuple):
    """How far a durable consumer has acknowledged. Compare marks by their `position`.

    Attributes:
        position: a `Position`; inside a snapshot, followed by the number of documents delivered.
    """

    position: tuple[int, ...] = BEFORE_ALL
    snapshot: SnapshotState = SnapshotStage.NONE

    @classmethod
    def at(cls, position: tuple[int, ...], progress: SnapshotProgress | None) -> Mark:
        """Make the mark of the event at `position`, whose token has this `progress`."""
        if progress is None:
            return cls(position)
        return cls((*position, progress.delivered), progress if progress.remaining else SnapshotStage.NONE)

    @property
    def text(self) -> str | None:
        """The snapshot's progress as the catalog stores it."""
        return self.snapshot.value if isinstance(self.snapshot, SnapshotStage) else str(self.snapshot)


@total_ordering
@dataclass(frozen=True)
class ResumeToken:
    """A position from which a stream can resume: that of an event, or one between two transactions.

    Tokens compare in the order of the events. A token depends only on the WAL, not on the stream's filter, collections
    or output plugin, nor on the process that issued it: any stream can resume from it. Only a token from inside a
    snapshot also holds how far that snapshot has come, in `progress`.

    `database_oid` is the oid of the database whose events it orders; `None` in tokens of earlier versions. It doesn't
    take part in comparisons, since a place in the WAL of a cluster belongs to one database.
    """

    position: Position
    system_id: int
    timeline: int
    progress: SnapshotProgress | None = None
    database_oid: int | None = field(default=None, compare=False)

    @property
    def is_inside(self) -> bool:
        """Whether the token is from inside a snapshot that is not complete yet."""
        return self.progress is not None and bool(self.progress.remaining)

    @property
    def lsn(self) -> Lsn:
        """The LSN of the transaction's commit record."""
        return Lsn(self.position.commit_lsn)

    @classmethod
    def parse(cls, text: str) -> ResumeToken:
        """Parse the text that `str(token)` returned.

        Raises:
            InvalidResumeToken: the text is not a token.
        """
        found = _TOKEN.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidResumeToken(
                f"{text!r} is not a resume token: use str(event.resume_token), or an LSN such as 16/B374D848"
            )
        commit_high, commit_low, high, low, kind, ordinal, progress_text, ids = found.groups()
        position = int(commit_high, 16) << 32 | int(commit_low, 16), 0, 0, 0
        if high is not None:
            position = position[0], int(high, 16) << 32 | int(low, 16), int(kind), int(ordinal)
            if not position[1]:
                raise InvalidResumeToken(f"{text!r} is not a resume token: no change has the LSN 0/0")
        try:
            progress = SnapshotProgress.parse(progress_text) if progress_text else None
        except ValueError as exc:
            raise InvalidResumeToken(f"{text!r} is not a resume token: its snapshot part is damaged") from exc
        return token_at(position, _ids_of(ids), progress)

    def __str__(self) -> str:
        return token_text(self.position, (self.system_id, self.timeline, self.database_oid), self.progress)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ResumeToken):
            return NotImplemented
        return self._order < other._order

    def comes_before(self, other: ResumeToken) -> bool:
        """Return whether its event comes before the other's, whatever timelines the two were issued on."""
        return self._order[:2] < other._order[:2]

    @property
    def _order(self) -> tuple[Position, tuple[bool, int], int, int]:
        # At one position, the snapshot's documents come in their order, and the change itself comes last.
        snapshot = (self.progress is None, self.progress.delivered if self.progress else 0)
        return self.position, snapshot, self.timeline, self.system_id


def token_text(position: RawPosition | Position, ids: Ids, progress: SnapshotProgress | None = None) -> str:
    """Return the text of the token that `token_at` makes."""
    commit_lsn, lsn, kind, ordinal = position
    snapshot = f".s{progress}" if progress else ""
    if not lsn:
        return f"{_lsn_text(commit_lsn)}{snapshot}{_ids_text(ids)}"
    return "%s.%X/%X.%d.%d%s%s" % (  # noqa: UP031 (half the time of an f-string)
        _lsn_text(commit_lsn),
        lsn >> 32,
        lsn & 0xFFFFFFFF,
        kind,
        ordinal,
        snapshot,
        _ids_text(ids),
    )


@lru_cache(maxsize=16)
def _lsn_text(lsn: int) -> str:
    """Return the text of a transaction's LSN, the same in the tokens of its changes."""
    return str(Lsn(lsn))


@lru_cache(maxsize=16)
def _ids_text(ids: Ids) -> str:
    """Return the end of a token's text, the same in all tokens of a database."""
    return "".join([f".{each}" for each in ids if each is not None])


@lru_cache(maxsize=16)
def _ids_of(text: str) -> Ids:
    """Return what `_ids_text` wrote, without the dot before it."""
    system_id, timeline, *database_oid = map(int, text.split("."))
    return system_id, timeline, database_oid[0] if database_oid else None


def token_at(position: RawPosition, ids: Ids, progress: SnapshotProgress | None = None) -> ResumeToken:
    """Make the token of a position; inside a snapshot, `progress` is how far it had come.

    It sets the object's dict, in a third of the time that the constructor of a frozen dataclass takes.
    """
    token = object.__new__(ResumeToken)
    system_id, timeline, database_oid = ids
    _set_state(
        token,
        {
            "position": tuple.__new__(Position, position),
            "system_id": system_id,
            "timeline": timeline,
            "progress": progress,
            "database_oid": database_oid,
        },
    )
    return token


_set_state = ResumeToken.__dict__["__dict__"].__set__
