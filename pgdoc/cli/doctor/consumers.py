"""Checks of durable consumers and of the history that streams resume from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.cli.doctor.commands import drop_slot_sql, for_shell, set_for_server
from pgdoc.cli.doctor.finding import good, unseen, warn, wrong
from pgdoc.cli.render import render_bytes, render_delay
from pgdoc.database.rights import CONSUMER_TABLES
from pgdoc.model.positions import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_consumers", "check_history"]

_SILENT: Final = timedelta(seconds=15)  # three heartbeats of a consumer's owner
_LEASE: Final = timedelta(seconds=30)
_ORPHANED: Final = timedelta(days=7)
_ABANDONED: Final = timedelta(minutes=5)
_FUTURE: Final = timedelta(seconds=5)


def check_consumers(on: Examination) -> Iterator[Finding]:
    """Check the consumers of all schemas."""
    try:
        with on.connection.transaction():
            consumers = on.rows("consumers")
    except psycopg.errors.InsufficientPrivilege:
        yield unseen(
            "consumers-unseen",
            f'the role "{on.role}" may not read the consumers: let the catalog\'s owner grant it',
            on.role,
            fix=[f"GRANT SELECT ON {', '.join(CONSUMER_TABLES)} TO {on.quoted_role}"],
        )
        return
    for consumer in consumers:
        yield from _consumer(consumer)
    known = {consumer.slot for consumer in consumers}
    for slot in on.rows("slots"):
        if slot.is_consumers and slot.is_here and slot.name not in known:
            yield warn(
                "slot-without-consumer",
                f'slot "{slot.name}" is that of a consumer which the catalog does not have, as a restored catalog '
                "leaves it: it keeps WAL until a consumer of that name is opened",
                slot.name,
                slot.retained,
                fix=[drop_slot_sql(slot.name)],
            )


def _consumer(found: Any) -> Iterator[Finding]:
    name = found.name
    if found.last_open_at > found.now + _FUTURE:
        yield warn(
            "clock-went-back",
            f"consumer {name} was used at {found.last_open_at:%Y-%m-%d %H:%M:%S%z}, which has yet to come: the "
            "server's clock has gone back, and what depends on it (the expiry of documents, prune) is late",
            name,
        )
    if found.unreadable is not None or not found.is_settled or found.wal_status in {None, "lost"}:
        yield _broken(found)
    elif found.owner_pid is None:
        yield _closed(found)
    elif found.owner_silent is not None and found.owner_silent > _SILENT:
        yield _silent(found)
    else:
        behind = render_bytes(found.lag_bytes)
        text = f"consumer {name} is open in pid {found.owner_pid}, {behind} behind"
        yield good("consumer", text, name, found.lag_bytes)


def _broken(found: Any) -> Finding:
    """Report a consumer that does not go on when it is opened, or goes on without what it missed."""
    name = found.name
    if found.unreadable is not None:
        return wrong(
            "consumer-unreadable",
            f"consumer {name} can't read the transaction that commits at {found.unreadable}: let it pass that one, and "
            "open the consumer again",
            name,
            found.unreadable,
            fix=[for_shell("pgdoc", "consumers", "skip", name)],
        )
    if not found.is_settled:
        return warn(
            "consumer-unfinished",
            f"consumer {name} has no position, because its creation was interrupted: open it, which begins again, or "
            "drop it",
            name,
            fix=[for_shell("pgdoc", "consumers", "drop", name)],
        )
    lost = "lost its slot" if found.wal_status is None else "lost its WAL"
    return wrong(
        "consumer-lost",
        f"consumer {name} has {lost}: opening it finds the position again if history reaches back to it; otherwise let "
        "it begin anew from now, and rebuild what it feeds",
        name,
        lost,
        fix=[for_shell("pgdoc", "consumers", "recreate", name)],
    )


def _closed(found: Any) -> Finding:
    name, kept = found.name, render_bytes(found.retained_bytes)
    drop = [for_shell("pgdoc", "consumers", "drop", name)]
    unused = found.now - found.last_open_at
    if unused > _ORPHANED:
        text = (
            f"nobody has opened consumer {name} for {render_delay(unused)}, and it retains {kept} of WAL: open it, or "
            "drop it"
        )
        return warn("consumer-orphaned", text, name, found.last_open_at.isoformat(), fix=drop)
    text = f"consumer {name} is not open, and retains {kept} of WAL: open it, or drop it"
    return warn("consumer-closed", text, name, found.retained_bytes, fix=drop)


def _silent(found: Any) -> Finding:
    lease = " and its lease has expired" if found.owner_silent > _LEASE else ""
    return warn(
        "consumer-silent",
        f"the owner of consumer {found.name}, pid {found.owner_pid}, has been silent for "
        f"{render_delay(found.owner_silent)}"
        f"{lease}: its process hangs or is cut off; end its session to let a standby take over at once",
        found.name,
        found.owner_pid,
        fix=[f"SELECT pg_terminate_backend({found.owner_pid})"],
    )


def check_history(on: Examination) -> Iterator[Finding]:
    """Check what history is kept, and whether the server's limit leaves room for it."""
    ((time_s, size, oldest, retained, bookmarks),) = on.rows_of("streams", "history")
    ((limit,),) = on.rows("slot_limit")
    if oldest is None:
        yield _no_history(on, limit)
    else:
        text = f"reaches back to {Lsn(oldest)} and retains {render_bytes(retained)} of WAL"
        yield good("history", text, on.database, retained)
    if limit is not None and size >= limit:
        yield warn(
            "history-limit",
            f"history may retain {render_bytes(size)} of WAL, but the server drops what exceeds {render_bytes(limit)} "
            "(max_slot_wal_keep_size), and the positions of consumers with it: raise it, or "
            "`Store.set_history(size=...)` less",
            "max_slot_wal_keep_size",
            limit,
            fix=set_for_server("max_slot_wal_keep_size", f"{size * 2 >> 20}MB"),
        )
    yield from _bookmarks_left(on, bookmarks, time_s)


def _no_history(on: Examination, limit: int | None) -> Finding:
    if limit is None:  # the last store drops the bookmarks, and `pgdoc init` makes none
        text = "none is kept while no stream is open, because nothing limits the WAL of slots (max_slot_wal_keep_size)"
        return warn("history", text, on.database, 0, fix=set_for_server("max_slot_wal_keep_size", "10GB"))
    text = "none is kept yet, so no stream can resume: open a stream, or run the command as a role that may replicate"
    return warn("history", text, on.database, 0, fix=["pgdoc init"])


def _bookmarks_left(on: Examination, bookmarks: int, time_s: float) -> Iterator[Finding]:
    """Where nothing limits WAL, the last store drops the bookmarks; a store that was killed did not."""
    if not bookmarks or not on.reads_stats or not on.rows("keeps_bookmarks_for_nobody"):
        return
    left = [slot for slot in on.rows("slots") if slot.is_bookmark and slot.is_here]
    newest = max((_made_at(slot.name) for slot in left), default=datetime.now(UTC))
    age = datetime.now(UTC) - newest
    if left and age > max(timedelta(seconds=time_s), _ABANDONED):
        retained = max(slot.retained or 0 for slot in left)
        yield warn(
            "bookmarks-left",
            f"a process that was killed has left {len(left)} bookmarks, which retain {render_bytes(retained)} of WAL, "
            f"and nothing limits them; the newest is {render_delay(age)} old: drop them, or open a stream and close it",
            left[0].name,
            retained,
            fix=[drop_slot_sql(slot.name) for slot in left],
        )


def _made_at(bookmark: str) -> datetime:
    return datetime.fromtimestamp(int(bookmark.split("_")[2], 16), UTC)
