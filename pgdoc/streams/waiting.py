"""What waits in a mailbox to be used, for figures."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.change import Change, TransactionInfo
    from pgdoc.model.positions import RawPosition


class Waiting(NamedTuple):
    """What waits in a mailbox at one moment.

    Attributes:
        number: how many changes are unused.
        size_bytes: the size of their messages.
        oldest: the first of them; `None` if none waits.
        refused: the first change for which there was no room, without its row. It may have been put since.
        used: the transaction of the last used change, if that is still known.
        reached: the position that the stream has passed, or zeros while a change waits.
    """

    number: int
    size_bytes: int
    oldest: Change | None
    refused: tuple[RawPosition, TransactionInfo] | None
    used: TransactionInfo | None
    reached: RawPosition


def first_beyond(runs: Iterable[tuple[list[Change], int]], position: RawPosition) -> Change | None:
    """Return the first change beyond `position`. The changes of each run are in order, and none is empty."""
    for changes, _ in runs:
        if changes[-1].position > position:
            return changes[bisect_right(changes, position, key=itemgetter(0))]
    return None
