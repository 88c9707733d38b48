"""Gets past a transaction with a change that the server can't send.

Positions are the same along every route, so a reader may change it between any two sessions. In this order:

1. pgoutput, which sends most changes that wal2json can't;
2. pgoutput without messages: any role can send a message of almost 1 GB, which is no metadata of pgdoc's writers;
3. wal2json for single collections, for those who want none that has an unreadable change. pgoutput can't leave out a
   table: it reads its publication as of the transaction.

A detour ends just after the transaction.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pgdoc.decoding.parts import Part
from pgdoc.decoding.records import ROW_KINDS
from pgdoc.errors import PgdocError, ServerUnreachable, UnreadableChange
from pgdoc.model.positions import Lsn
from pgdoc.model.topics import ANY_TOPIC
from pgdoc.replication.routes import STRAIGHT, Route, UnsentChange
from pgdoc.replication.session import read_burst
from pgdoc.runtime.deadline import is_closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.changes.router import Selection
    from pgdoc.replication.session import ReplicationSession

    OpenRoute = Callable[[Route], ReplicationSession]

__all__ = ["find_poison", "open_detour", "unreadable", "wants_any"]

logger = logging.getLogger("pgdoc.stream")

_READ_S = 0.5


def open_detour(open_route: OpenRoute, session: ReplicationSession, unsent: UnsentChange) -> ReplicationSession:
    """Open a session that reads on from before the transaction that `session` could not read, along the next route.

    Raises:
        UnsentChange: no route is left.
    """
    plugin, part = session.slot_start.plugin, session.route.part
    while (step := _next_step(plugin, part, unsent)) is not None:
        plugin, part = step
        try:
            detour = open_route(Route(plugin, part, unsent.until))
        except PgdocError as exc:
            if exc.resumable:
                raise
            logger.info("no detour through %s: %s", plugin, exc)
            continue
        logger.warning(
            "%s: reading it through %s, %s writers' metadata",
            unsent,
            plugin,
            "with" if part.has_messages else "without",
        )
        return detour
    raise unsent


def _next_step(plugin: str, part: Part, unsent: UnsentChange) -> tuple[str, Part] | None:
    if part.only is None and plugin != "pgoutput":
        return "pgoutput", part._replace(has_messages=not unsent.is_message)
    return (plugin, part._replace(has_messages=False)) if unsent.is_message and part.has_messages else None


def find_poison(
    open_route: OpenRoute,
    names: frozenset[str] | None,
    unsent: UnsentChange,
    *,
    has_topics: bool = False,
    check: Callable[[], object] = bool,
) -> tuple[frozenset[str] | None, Route]:
    """Return which collections have a change that wal2json can't send, and the route to the others.

    Reads the transaction a few times for each of them. `names` are the collections that are wanted; `None` for all.
    With `has_topics`, messages are wanted, too, which all come from one table: `ANY_TOPIC` stands for it.
    `check` is called meanwhile, and may raise. A thread that has to end gives up.

    Returns:
        `None` if it can't be found out, because only wal2json can send some of the tables. The route is straight then.
    """

    def read(some: Iterable[str]) -> frozenset[str] | None:
        """Return the collections that exist up to there; `None` if the changes of `some` can't be sent."""
        part = Part(has_messages=False, only=frozenset(some))
        session = open_route(Route("wal2json", part, unsent.until))
        try:
            while not session.has_arrived:
                if is_closing():
                    raise ServerUnreachable("canceled, because the stream is being closed")
                check()
                read_burst(session, _READ_S)
        except UnsentChange:
            return None
        finally:
            session.reader.close()
        return session.assembler.names

    def find(some: list[str]) -> list[str]:
        if not some or read(some) is not None:
            return []
        if len(some) == 1:
            return some
        half = len(some) // 2
        return find(some[:half]) + find(some[half:])

    try:
        wanted = (read(()) or frozenset()) if names is None else names
        wanted |= {ANY_TOPIC} if has_topics else frozenset()
        poison = frozenset(find(sorted(wanted)))
    except PgdocError as exc:
        if exc.resumable:
            raise
        logger.info("could not find out which collection has the unreadable change: %s", exc)
        return None, STRAIGHT
    return poison, Route("wal2json", Part(only=wanted - poison), unsent.until)


def wants_any(selection: Selection, poison: frozenset[str] | None) -> bool:
    """Return whether a stream can want changes of these collections; `None` stands for any."""
    if poison is not None and ANY_TOPIC in poison and selection.topics:
        return True
    return poison is None or any(selection.may_want(name, kind) for name in poison for kind in ROW_KINDS)


def unreadable(unsent: UnsentChange, poison: frozenset[str] | None, subject: str, advice: str) -> UnreadableChange:
    """Make the error for a stream that wants what can't be read."""
    listed = ", ".join("pgdoc.messages" if name == ANY_TOPIC else f'"{name}"' for name in sorted(poison or ()))
    found = f"a change of {listed}" if listed else "a change (of a collection that could not be found out)"
    xid = None if unsent.transaction is None else unsent.transaction.xid
    error = UnreadableChange(
        f"{subject} can't read {found} at {Lsn(unsent.lsn)}, in transaction {xid}, which commits at "
        f"{Lsn(unsent.place)}: {unsent.cause}. {advice}",
        commit_lsn=str(Lsn(unsent.place)),
        xid=xid,
        collections=tuple(sorted(poison or ())),
        position=str(Lsn(unsent.lsn)),
    )
    error.__cause__ = unsent.cause
    return error
