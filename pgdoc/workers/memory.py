"""What a process remembers about a handler from one lane to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["LaneMemory"]


@dataclass(slots=True)
class LaneMemory:
    """Keeps the counts of processes that ended true: a process that goes on has not ended.

    Attributes:
        has_begun: whether this process has begun to run the handler before.
        tried: the place of the event or letter that it tried last, if its end is open.
    """

    has_begun: bool = False
    tried: list[int] = field(default_factory=list)
