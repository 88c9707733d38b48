"""What a durable consumer may confirm to its slot.

1. A transaction is outstanding from its first change that was given to the stream until its last one that was given is
   acknowledged. An acknowledgement covers everything up to its place. Where the last one may have taken the stream's
   last collection, the invalidate that comes of it has to be acknowledged, too.
2. While one is outstanding, the oldest one's commit LSN is confirmed, no more: the server sends every transaction whose
   commit record lies at or beyond what was confirmed, whole.
3. With none outstanding, the reader's R is confirmed: a consumer to whose collections nothing happens pins no WAL.
4. Where many are outstanding, neighbours are counted as one: memory is bounded, and the server keeps a little more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgdoc.model.positions import just_after
from pgdoc.model.tokens import Mark

if TYPE_CHECKING:
    from pgdoc.changes.change import Change
    from pgdoc.model.positions import RawPosition

__all__ = ["Acknowledgements", "Marks"]

MOST = 10_000
"""How many transactions are told apart."""

_ENDING = ("drop", "rename")


@dataclass(slots=True)
class _Outstanding:
    commit_lsn: int
    committed_at: str
    last: RawPosition


class Acknowledgements:
    """Follows what is given and what is acknowledged."""

    def __init__(self) -> None:
        self._outstanding: deque[_Outstanding] = deque()

    def give(self, changes: list[Change]) -> None:
        """Note what was put into the stream's mailbox, in order."""
        outstanding = self._outstanding
        for position, transaction, row in changes:
            last = just_after(position) if row.kind in _ENDING else position
            if outstanding and outstanding[-1].commit_lsn == position[0]:
                outstanding[-1].last = last
            else:
                outstanding.append(_Outstanding(position[0], transaction.timestamp, last))
        if len(outstanding) > MOST:
            self._thin()

    def _thin(self) -> None:
        """Count each two neighbours as one, which begins as the first does and ends as the second."""
        every = list(self._outstanding)
        for first, second in zip(every[::2], every[1::2], strict=False):
            first.last = second.last
        self._outstanding = deque(every[::2])

    def acknowledge(self, place: tuple[int, ...]) -> None:
        """Note that everything up to `place` is acknowledged."""
        while self._outstanding and self._outstanding[0].last <= place:
            self._outstanding.popleft()

    def confirmable(self, reached: int) -> int:
        """Give the LSN below which the server may forget everything.

        Args:
            reached: the R of the reader: everything wanted below it was given.
        """
        return self._outstanding[0].commit_lsn if self._outstanding else reached

    @property
    def waiting_since(self) -> str | None:
        """When the oldest outstanding transaction committed, as the server prints it."""
        return self._outstanding[0].committed_at if self._outstanding else None


class Marks:
    """How far a consumer has come, whoever says so, and what follows for its slot.

    The documents of a snapshot stand in no transaction: until all of them are acknowledged, nothing beyond the place of
    the last one that is may be confirmed.

    Attributes:
        begun: where the stream began.
        checkpointed: the last checkpoint that was committed, and can't be taken back.
    """

    def __init__(self) -> None:
        self.begun = self.checkpointed = self._acknowledged = Mark()
        self._passed = (Mark(), Mark())
        self._outstanding = Acknowledgements()

    def begin_anew(self) -> None:
        """Forget what was outstanding: it is lost. What the stream still holds can be acknowledged."""
        self._outstanding = Acknowledgements()

    def give(self, changes: list[Change]) -> None:
        """Note what was put into the stream's mailbox, in order."""
        self._outstanding.give(changes)

    def acknowledge(self, mark: Mark) -> None:
        """Note what the user acknowledged."""
        if mark.position >= self._acknowledged.position:
            self._acknowledged = mark

    def pass_over(self, given: Mark, mark: Mark) -> None:
        """Note that behind `given` there is nothing to be acknowledged up to `mark`."""
        self._passed = (given, mark)

    @property
    def latest(self) -> Mark:
        """Up to where everything is acknowledged.

        What was passed over behind it counts, too: a checkpoint is heard of later than the stream goes on.
        """
        latest = max(self.begun, self._acknowledged, self.checkpointed, key=lambda mark: mark.position)
        given, passed = self._passed
        return passed if given.position <= latest.position < passed.position else latest

    def confirmable(self, reached: int) -> int:
        """Give the LSN below which nothing is needed again, `reached` being the reader's R."""
        latest = self.latest
        self._outstanding.acknowledge(latest.position)
        lsn = self._outstanding.confirmable(reached)
        return lsn if latest.snapshot is None else min(lsn, latest.position[0])

    @property
    def waiting_since(self) -> str | None:
        """When the oldest outstanding transaction committed, as the server prints it."""
        return self._outstanding.waiting_since
