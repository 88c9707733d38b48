"""What is read: the source, where a slot starts, and the identity of a cluster and its database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pgdoc.decoding.plugins import PLUGINS
from pgdoc.errors import InvalidResumeToken, ServerUnreachable, UnsupportedServer
from pgdoc.model.positions import Lsn, before_commits_at

if TYPE_CHECKING:
    from pgdoc.model.positions import Ids, RawPosition


PLUGIN_CHOICES = ("auto", *PLUGINS)

_HAS_FAILOVER_SLOTS = 170000


@dataclass(frozen=True, slots=True)
class Source:
    """The server, database and schema to read, and the output plugin to read through.

    Attributes:
        plugin: one of `PLUGIN_CHOICES`; `auto` stands for the first plugin that the server has and allows.
        failover: `auto`, true or false: whether permanent slots are failover slots, which standbys synchronize;
            `auto` stands for true from PostgreSQL 17 on.
        primary: a conninfo of the primary, if `conninfo` may lead to one of its standbys.
        keeps_history: whether some hub keeps history on this server, so that a new slot may begin it.
    """

    conninfo: str = field(repr=False)
    schema: str
    plugin: str = "auto"
    failover: str | bool = "auto"
    primary: str | None = field(default=None, repr=False)
    keeps_history: bool = True

    @property
    def plugins(self) -> tuple[str, ...]:
        """The plugins to try, in order."""
        return tuple(PLUGINS) if self.plugin == "auto" else (self.plugin,)

    def wants_failover(self, server_version: int) -> bool:
        """Return whether permanent slots of a server of this version are failover slots.

        Raises:
            UnsupportedServer: they must be, and the server has none.
        """
        if self.failover is True and server_version < _HAS_FAILOVER_SLOTS:
            raise UnsupportedServer(
                f"failover=True needs failover slots, which PostgreSQL has since version 17, but the server is "
                f'PostgreSQL {server_version // 10000}: upgrade it, or use failover="auto"'
            )
        return bool(self.failover) and server_version >= _HAS_FAILOVER_SLOTS


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
    """The identity of a cluster, and of the database that is read.

    Attributes:
        switches: `(timeline, LSN at which the server left it)` for each earlier timeline.
        database_oid: identifies the database inside the cluster. A copy, or one created again, has another.
        former: the system identifiers of the clusters from which this one was upgraded.
    """

    system_id: int
    timeline: int
    switches: tuple[tuple[int, int], ...] = ()
    database_oid: int | None = None
    database: str = ""
    former: tuple[int, ...] = ()

    @property
    def ids(self) -> Ids:
        """What the tokens of this database's positions carry."""
        return self.system_id, self.timeline, self.database_oid

    def check_same(self, other: Cluster) -> None:
        """Refuse a connection that leads elsewhere than another one: to a server that was promoted meanwhile.

        Raises:
            ServerUnreachable: it does.
        """
        if self.ids != other.ids:
            raise ServerUnreachable(
                f"one connection leads to cluster {other.system_id} on timeline {other.timeline}, the next to cluster "
                f"{self.system_id} on timeline {self.timeline}: a failover is going on, or two servers take writes"
            )

    def check(self, position: RawPosition, ids: Ids) -> None:
        """Refuse a position that is not part of this database's history.

        A position between two transactions may lie exactly at the LSN where the server left a timeline, because none of
        its transactions commits there.

        Raises:
            InvalidResumeToken: the position is from another cluster or database, or beyond the LSN where its timeline
                was left.
        """
        system_id, timeline, database_oid = ids
        if system_id in self.former and system_id != self.system_id:
            raise InvalidResumeToken(
                f"the token belongs to cluster {system_id}, which was upgraded to this cluster, {self.system_id}: no "
                "position outlasts an upgrade of PostgreSQL; start without it, and with snapshot=True where you keep "
                "a copy of the documents"
            )
        if system_id != self.system_id:
            raise InvalidResumeToken(
                f"the token belongs to cluster {system_id}, but this server is cluster {self.system_id}: "
                "open the stream where the token was issued, or start without it"
            )
        if database_oid not in {None, self.database_oid}:
            raise InvalidResumeToken(
                f"the token belongs to the database with oid {database_oid}, but this is the database "
                f'"{self.database}" with oid {self.database_oid}, of the same cluster: open the stream where the token '
                "was issued, or start without it"
            )
        left_at = dict(self.switches).get(timeline, 0)
        if timeline != self.timeline and position > before_commits_at(left_at):
            raise InvalidResumeToken(
                f"position {Lsn(position[0])} on timeline {timeline} is not part of this server's history (timeline "
                f"{self.timeline}): a server that had not reached it was restored or promoted; start without it"
            )
