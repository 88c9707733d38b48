"""Checks of the groups that read a log, which has members and positions outside of the database."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg

import pgdoc
from pgdoc.cli.doctor.commands import for_shell
from pgdoc.cli.doctor.examination import render_seconds
from pgdoc.cli.doctor.finding import good, unseen, warn
from pgdoc.cli.stores import open_store
from pgdoc.errors import DatabaseError, LogRefused, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import GroupMember, GroupStatus
    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_groups", "check_unnamed_logs"]

_LONGEST_WATCH_S: Final = 30.0
"""How long members are watched at most: the doctor must end, and a lease can be a day."""

_POLL_S: Final = 1.0
_READ: Final = "pgdoc.group_positions, pgdoc.handlers"


class WatchedMember(NamedTuple):
    """A member whose record has not changed since the groups were first listed.

    Attributes:
        group: the name of its group.
        is_over: whether that was for the length of its lease.
    """

    group: str
    member: GroupMember
    is_over: bool


def check_groups(on: Examination) -> Iterator[Finding]:
    """Check the groups of the log that the user names."""
    if not on.log_url:
        return
    try:
        groups, silent = _watch(on)
    except (LogRefused, MissingExtra, DatabaseError) as exc:
        if isinstance(exc, LogRefused) and exc.reason != "rights":
            raise
        yield unseen("groups-unseen", str(exc))
        return
    for group in groups:
        yield from _of_group(group, [each for each in silent if each.group == group.name])
    if not groups:
        yield good("groups", "no group reads the log", value=0)


def check_unnamed_logs(on: Examination) -> Iterator[Finding]:
    """Without the name of a log, say which have groups with rows in the database."""
    if on.log_url:
        return
    try:
        with on.connection.transaction():
            logs = [row.log for row in on.rows("group_logs")]
    except psycopg.errors.InsufficientPrivilege:
        yield unseen(
            "groups-unseen",
            f'the role "{on.role}" may not see whether groups of a log have rows here: let the owner of the catalog '
            "grant it, or name a log with --from-relay",
            on.role,
            fix=[f"GRANT SELECT ON {_READ} TO {on.quoted_role}"],
        )
        return
    if logs:
        yield unseen(
            "groups-unseen",
            f"groups of {', '.join(logs)} have rows here, and their members are beside the log: name it with "
            "--from-relay or PGDOC_FROM_RELAY",
            logs[0],
            len(logs),
        )


def _watch(on: Examination) -> tuple[list[GroupStatus], list[WatchedMember]]:
    """List the groups until each member has shown that it is alive, or was silent for its lease."""
    with nullcontext() if on.in_recovery else open_store("doctor", on.dsn) as store:
        groups = pgdoc.log_groups(on.log_url, store=store)
        began, first = time.monotonic(), _revisions(groups)
        while True:
            watched_s = time.monotonic() - began
            silent = [
                WatchedMember(group.name, member, watched_s > member.lease.total_seconds())
                for group in groups
                for member in group.members
                if first.get((group.name, member.id)) == member.revision
            ]
            if watched_s > _LONGEST_WATCH_S or all(each.is_over for each in silent):
                return groups, silent
            time.sleep(_POLL_S)
            groups = pgdoc.log_groups(on.log_url, store=store)


def _revisions(groups: list[GroupStatus]) -> dict[tuple[str, str], int]:
    return {(group.name, member.id): member.revision for group in groups for member in group.members}


def _of_group(group: GroupStatus, silent: list[WatchedMember]) -> Iterator[Finding]:
    for each in silent:
        yield _member(group, each)
    over = {each.member.id for each in silent if each.is_over}
    alive = {member.id for member in group.members} - over
    ended = ["--"] if group.name.startswith("-") else []  # else it reads as an option
    drop = [for_shell("pgdoc", "groups", "drop", *ended, group.name)]
    if group.behind is None and not alive:
        if group.partitions:
            text = f"group {group.name} has read a log that is gone or was made anew, and can't go on"
        else:
            text = (
                f"only rows in this database are left of group {group.name}, and one of that name skips what they say"
            )
        yield warn("group-without-log", f"{text}: drop it, so that it begins anew", group.name, fix=drop)
    elif group.behind and not alive:
        yield warn(
            "group-stopped",
            f"group {group.name} has no member that is alive, and the log has {group.behind:,} entries from its "
            "position to the newest: start its processes, or drop it",
            group.name,
            group.behind,
            fix=drop,
        )
    elif not silent:
        members = f"{len(alive)} member{'' if len(alive) == 1 else 's'}"
        owned = sum(each.owner in alive for each in group.partitions)
        text = f"group {group.name} has {members} with {owned} of {len(group.partitions)} partitions"
        behind = "" if group.behind is None else f", {group.behind:,} entries behind"
        yield good("group", text + behind, group.name, group.behind)


def _member(group: GroupStatus, found: WatchedMember) -> Finding:
    member = found.member
    named = member.id if member.host is None else f"pid {member.pid} on {member.host}"
    lease = render_seconds(member.lease.total_seconds())
    owned = sum(each.owner == member.id for each in group.partitions)
    partitions = f"{owned or 'no'} partition{'' if owned == 1 else 's'}"
    if not found.is_over:
        return unseen(
            "group-member-quiet",
            f"member {named} of group {group.name}, which has {partitions}, was silent for "
            f"{render_seconds(_LONGEST_WATCH_S)}, and its lease is {lease}: look whether the process runs",
            group.name,
            member.id,
        )
    return warn(
        "group-member-over",
        f"member {named} of group {group.name} has left {partitions}, and was silent for its lease of {lease}: its "
        "process was killed, hangs or is cut off; end it, and start it again",
        group.name,
        member.id,
    )
