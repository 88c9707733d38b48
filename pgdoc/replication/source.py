"""What is read, of which cluster, and what can't be: the ground of this room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import InvalidResumeToken
from pgdoc.model.positions import Lsn

if TYPE_CHECKING:
    from pgdoc.model.positions import RawPosition


PLUGIN_CHOICES = ("auto", *PLUGINS)


@dataclass(frozen=True, slots=True)
class Source:
    """What is read: which server and database, which schema, through which plugin.

    Attributes:
        plugin: one of `PLUGIN_CHOICES`; `auto` is the first that the server has and allows.
    """

    conninfo: str
    schema: str
    plugin: str = "auto"

    @property
    def plugins(self) -> tuple[str, ...]:
        """The plugins to try, in order."""
        return tuple(PLUGINS) if self.plugin == "auto" else (self.plugin,)


class SlotStart(NamedTuple):
    """Where a slot stands, and how it is read.

    Attributes:
        at: the LSN.
        plugin: of the slot.
        refusal: why the server does not let one be used that goes before it.
    """

    at: int
    plugin: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster this is.

    Attributes:
        switches: `(timeline, LSN at which it was left)` for each earlier timeline.
    """

    system_id: int
    timeline: int
    switches: tuple[tuple[int, int], ...] = ()

    def check(self, place: RawPosition, system_id: int, timeline: int) -> None:
        """Refuse a place that is none of this cluster's.

        Where a timeline was left, no transaction of it commits any more; the place between two transactions is there.

        Raises:
            InvalidResumeToken: from another cluster, or past the point where its timeline was left.
        """
        if system_id != self.system_id:
            raise InvalidResumeToken(
                f"the token is of cluster {system_id}, this server is cluster {self.system_id}: "
                "open the stream where the token was issued, or start without it"
            )
        left_at = dict(self.switches).get(timeline, 0)
        if timeline != self.timeline and place > (left_at, 0, 0, 0):
            raise InvalidResumeToken(
                f"position {Lsn(place[0])} on timeline {timeline} is not part of this server's history (timeline "
                f"{self.timeline}): the server was restored, or another was promoted, from before it; start without it"
            )
