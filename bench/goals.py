"""What pgdoc's streams are meant to reach, and whether a run reached it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.figures import readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.figures import Figure


@dataclass(frozen=True)
class Goal:
    """A limit for one figure: for its ratio, or for its median if the goal has a unit of its own.

    Attributes:
        floor: the benchmark that shows, by loops or tables made by hand, why the goal is missed.
    """

    text: str
    part: str
    name: str
    limit: float
    at_most: bool = True
    x: float | None = None
    of_median: bool = False
    floor: str = ""

    def value(self, figure: Figure) -> float:
        return figure.median if self.of_median else figure.ratio

    def is_met(self, figure: Figure) -> bool:
        value = self.value(figure)
        return value <= self.limit if self.at_most else value >= self.limit

    def fits(self, figure: Figure) -> bool:
        return (figure.part, figure.name, figure.x) == (self.part, self.name, self.x)

    def verdict(self, figure: Figure) -> str:
        if self.is_met(figure):
            return "met"
        return f"**missed**: `bench {self.floor}` shows why" if self.floor else "**missed**"

    @property
    def wanted(self) -> str:
        return f"at {'most' if self.at_most else 'least'} {self.limit:,g}"


NEAR, FAR = "a token right after a bookmark, this far back", "a token this far after a bookmark"
GOALS = (
    Goal("changes/s, fields untouched, to pg_recvlogical", "rates", "fields untouched, wal2json", 1.0, at_most=False),
    Goal(
        "changes/s, all fields read, to pg_recvlogical",
        "rates",
        "all fields read, wal2json",
        0.85,
        at_most=False,
        floor="ceiling",
    ),
    Goal(
        "changes/s, to_json(), to pg_recvlogical",
        "rates",
        "to_json(), wal2json",
        0.75,
        at_most=False,
        floor="ceiling",
    ),
    Goal("us of CPU to read all fields", "reading", "all fields read, wal2json", 11, of_median=True),
    Goal("us of CPU for to_json()", "reading", "to_json(), wal2json", 10.5, of_median=True),
    Goal("us of CPU for to_dict()", "reading", "to_dict(), wal2json", 13, of_median=True),
    # Twice the 58 us of a bare loop when the goal was set. Here a bare loop often has the event before that moment.
    Goal(
        "us from the commit to an event of one stream", "after the commit", "sync stream, wal2json", 116, of_median=True
    ),
    Goal("us until 99% of them are there", "after the commit", "sync stream, wal2json, 99%", 1_000, of_median=True),
    Goal("ms to the last of 100 asyncio streams", "streams", "asyncio streams", 1, x=100, of_median=True),
    Goal("the last of 100 sync streams, to bare threads", "streams", "sync streams, a thread each", 2.5, x=100),
    Goal("ms to one of 1,000 streams", "own", "asyncio streams on a document each", 0.8, x=1_000, of_median=True),
    Goal("cores for 1,000 streams", "cores", "asyncio streams on a document each", 0.44, x=1_000, of_median=True),
    Goal("ms to resume 100 MB back, right after a bookmark", "resume", NEAR, 50, x=100, of_median=True),
    Goal("ms to resume 1 GB back, right after a bookmark", "resume", NEAR, 560, x=1_000, of_median=True),
    Goal("ms to resume 100 MB after a bookmark", "resume", FAR, 50, x=100, of_median=True),
    Goal("ms to resume 1 GB after a bookmark", "resume", FAR, 560, x=1_000, of_median=True),
    Goal("inserts/s, to a plain table", "writes", "insert, a collection", 0.94, at_most=False, floor="writer_parts"),
    Goal("updates/s, to a plain table", "writes", "update, a collection", 0.94, at_most=False, floor="writer_parts"),
    Goal(
        "WAL of inserts and updates, to a plain table", "WAL by size", "a collection", 1.48, x=200, floor="writer_parts"
    ),
)


def judge(figures: Iterable[Figure]) -> Iterator[tuple[Goal, str, str]]:
    """Yield each goal with what was reached and the verdict."""
    known = list(figures)
    for goal in GOALS:
        figure = next(filter(goal.fits, known), None)
        if figure is None:
            yield goal, "", "not measured"
        else:
            yield goal, readable(goal.value(figure)), goal.verdict(figure)
