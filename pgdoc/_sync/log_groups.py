# Written by .ci/twins.py from pgdoc/_async/log_groups.py: change that file, and run it.
"""Lists and drops the groups of a log, with the rows that they leave in a database."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg

from pgdoc._sync.store import Store
from pgdoc.database.errors import map_error
from pgdoc.errors import ConsumerBusy, InvalidInput
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.groups.dropping import GroupDropping
from pgdoc.relay.groups.listing import GroupRow, list_groups, with_rows
from pgdoc.relay.groups.status import GroupStatus
from pgdoc.relay.loop_thread import LoopThread
from pgdoc.relay.remote_options import LEASE_S, check_group
from pgdoc.relay.targets import LogTarget
from pgdoc.runtime.primitives import wait
from pgdoc.sql import statement

__all__ = ["drop_log_group", "log_groups"]

LOCK_TIMEOUT = "10s"
"""How long the rows of a group may be locked by a transaction of a former member."""


def log_groups(url: str, *, store: Store | None = None) -> list[GroupStatus]:
    """Return the groups that read a log: streams opened with `group=`, and workers with `log=`.

    Nothing is changed. A record that can't be read is named in the `damaged` of its group. With a store, checkpoints
    that have committed count, and groups of which only rows are left are listed as well.

    Args:
        url: of the log, as for `RemoteStream`.
        store: its database has the effects of the groups.

    Returns:
        The groups in the order of their names.

    Raises:
        InvalidInput: the URL is not one of a log that groups can read.
        MissingExtra: the client of the engine is not installed.
        LogUnreachable: the engine does not answer.
        LogRefused: there is no such log, it is not a relay's, or may not be read; `reason` says why. A log that is gone
            is no error if groups of it are left.
        DatabaseError: the role may not read the rows.
    """
    target = _target_of(url, store)
    thread = LoopThread("pgdoc-groups")
    try:
        log, groups = wait(thread.submit(list_groups(target)))
    finally:
        thread.close()
    if store is not None:
        rows = _rows_of(store, target)
        known = {each.name: each for each in groups}
        known |= {name: GroupStatus(name, (), (), None, None) for name in rows if name not in known}
        groups = [with_rows(known[name], rows.get(name, []), log.info) for name in sorted(known)]
    if log.missing is not None and not groups:
        raise log.missing
    return groups


def drop_log_group(url: str, group: str, *, store: Store | None = None) -> bool:
    """Drop a group of a log: what it keeps beside the log, and with a store its rows in that database.

    A group of the same name begins anew then. Without the store, rows that it has left let such a group pass over
    events whose effects they say are stored. Dead letters stay, as those of a consumer do.

    No member may be alive: end their processes first. A member that was killed is waited for, as long as its lease is,
    which is 10 seconds by default; the logger `pgdoc.remote` says until when. A process that is paused for longer, and
    then goes on, makes the group anew.

    Args:
        url: of the log, as for `RemoteStream`, also of a log that somebody has deleted.
        group: its name.
        store: its database has the effects of the group.

    Returns:
        Whether there was anything to drop. What another call drops at the same time does not count.

    Raises:
        ConsumerBusy: the group has members, or one of them has a transaction open.
        InvalidInput: the URL is not one of a log that groups can read, or `group` is no name.
        MissingExtra: the client of the engine is not installed.
        LogUnreachable: the engine does not answer. Call this again: it deletes what is left of the group.
        LogRefused: no relay writes the log of this name, or the user may not write it; or there is no such log, and
            nothing of the group.
        DatabaseError: the role may not delete the rows.
    """
    target = _target_of(url, store)
    if group is None:
        raise InvalidInput("group must be the name of a group, got None")
    check_group(group, LEASE_S)
    dropping = GroupDropping(target, group)
    thread = LoopThread("pgdoc-groups")
    try:
        log = wait(thread.submit(dropping.open()))
        if store is None:
            rows, had_records = 0, wait(thread.submit(dropping.delete()))
        else:
            with store.transaction() as tx:  # the rows stay if a member has joined meanwhile
                rows = _delete_rows(tx.connection, store, _params_of(target) | {"group": group})
                had_records = wait(thread.submit(dropping.delete()))
    finally:
        try:
            wait(thread.submit(dropping.close()))
        finally:  # also if the call is cancelled once more
            thread.close()
    if log.missing is not None and not rows and not had_records:
        raise log.missing
    return had_records or rows > 0


def _target_of(url: str, store: Store | None) -> LogTarget:
    if store is not None and not isinstance(store, Store):
        raise TypeError(f"store must be of type Store, got {short_repr(store)}")
    return LogTarget.parse(url)


def _params_of(target: LogTarget) -> dict[str, Any]:
    return {"log": target.key, "name": target.name}


def _rows_of(store: Store, target: LogTarget) -> dict[str, list[GroupRow]]:
    connections = store._connections  # noqa: SLF001 (one package)
    try:
        rows = connections.fetch(statement("groups", "left").encode(), _params_of(target))
    except psycopg.Error as exc:
        rights = connections.caller.to_have_groups("SELECT")
        raise map_error(exc, f"the groups of {target.shown}", rights=rights) from exc
    found: dict[str, list[GroupRow]] = defaultdict(list)
    for name, *values in rows:
        found[name].append(GroupRow(*values))
    return found


def _delete_rows(connection: Any, store: Store, params: dict[str, Any]) -> int:
    subject = f'group "{params["group"]}"'
    try:
        connection.execute(statement("groups", "limit_waiting").encode(), [LOCK_TIMEOUT])
        cursor = connection.execute(statement("groups", "drop").encode(), params, binary=True)
        ((count,),) = cursor.fetchall()
    except psycopg.errors.LockNotAvailable as exc:
        raise ConsumerBusy(
            f"{subject} can't be dropped: a transaction of a member is open; end it, with pg_terminate_backend() or, "
            "if it is a prepared one, ROLLBACK PREPARED"
        ) from exc
    except psycopg.Error as exc:
        rights = store._connections.caller.to_have_groups("SELECT, DELETE")  # noqa: SLF001 (one package)
        raise map_error(exc, subject, in_transaction=True, rights=rights) from exc
    return int(count)
