"""What is read: the source, where a slot starts, and the identity of a cluster."""

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
    """The server, database and schema to read, and the output plugin to read through.

    Attributes:
        plugin: one of `PLUGIN_CHOICES`; `auto` stands for the first plugin that the server has and allows.
    """

    conninfo: str
    schema: str
    plugin: str = "auto"

    @property
    def plugins(self) -> tuple[str, ...]:
        """The plugins to try, in order."""
        return tuple(PLUGINS) if self.plugin == "auto" else (self.plugin,)


class SlotStart(NamedTuple):
    """The LSN at which reading a slot starts, and the plugin.

    Attributes:
        refusal: why the server does not allow a plugin that pgdoc prefers; empty if it allows all of them.
    """

    at: int
    plugin: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The identity of a cluster.

    Attributes:
        switches: `(timeline, LSN at which the server left it)` for each earlier timeline.
    """

    system_id: int
    timeline: int
    switches: tuple[tuple[int, int], ...] = ()

    def check(self, position: RawPosition, system_id: int, timeline: int) -> None:
        """Refuse a position that is not part of this cluster's history.

        A position between two transactions may lie exactly at the LSN where the server left a timeline, because none of
        its transactions commits there.

        Raises:
            InvalidResumeToken: the position is from another cluster, or beyond the LSN where its timeline was left.
        """
        if system_id != self.system_id:
            raise InvalidResumeToken(
                f"the token belongs to cluster {system_id}, but this server is cluster {self.system_id}: "
                "open the stream where the token was issued, or start without it"
            )
        left_at = dict(self.switches).get(timeline, 0)
        if timeline != self.timeline and position > (left_at, 0, 0, 0):
            raise InvalidResumeToken(
                f"position {Lsn(position[0])} on timeline {timeline} is not part of this server's history (timeline "
                f"{self.timeline}): a server that had not reached it was restored or promoted; start without it"
            )
