"""Checks of the server itself: what it is, its settings, connections, clock and disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pgdoc.cli.doctor.commands import as_identifier, set_for_server
from pgdoc.cli.doctor.examination import render_seconds
from pgdoc.cli.doctor.finding import good, unseen, warn, wrong
from pgdoc.cli.render import render_bytes
from pgdoc.database.catalog import check_server
from pgdoc.database.session_settings import SESSION, missing_settings, wanted_settings
from pgdoc.errors import UnsupportedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_clock", "check_connections", "check_disk", "check_kind", "check_rights", "check_session"]

_FEW_FREE: Final = 2
_MUCH_SKEW_S: Final = 5.0
_WITHOUT: Final = {
    "jit": "so a call with a long filter can take seconds, and can't be canceled meanwhile",
    "client_connection_check_interval": "so the statement of a program that was killed runs to its end",
}
_HIDDEN: Final = (
    "the sessions of other roles: how old their transactions are, whether a consumer's owner is silent, and which "
    "standbys are connected"
)


def check_kind(on: Examination) -> Iterator[Finding]:
    """Check what pgdoc needs at all."""
    encoding = on.connection.info.parameter_status("server_encoding")
    try:
        check_server(on.connection.info.server_version, encoding)
    except UnsupportedServer as exc:
        yield wrong("server", str(exc), on.database, encoding)
        return
    version = on.connection.info.parameter_status("server_version")
    yield good("server", f"PostgreSQL {version}, {encoding}, database {on.database}", on.database, version)
    if on.in_recovery:
        yield unseen(
            "standby",
            "the server is a standby in recovery, so only what a standby needs was checked: run `pgdoc doctor` on the "
            "primary, too",
        )


def check_rights(on: Examination) -> Iterator[Finding]:
    """Say what a weak role hides from the other checks."""
    grant = [f"GRANT pg_monitor TO {on.quoted_role}"]
    if not on.reads_stats:
        yield unseen("role-sees-little", f'the role "{on.role}" may not see {_HIDDEN}', on.role, fix=grant)
    elif not on.reads_settings:
        yield unseen("role-sees-little", f'the role "{on.role}" may not see all settings', on.role, fix=grant)


def check_session(on: Examination) -> Iterator[Finding]:
    """Check what the calls of a store need, and a pooler may keep from them."""
    found = dict(on.rows_of("catalog", "session_settings", list(SESSION)))
    role = on.connection.info.user
    try:
        missing = missing_settings(wanted_settings(on.connection.info.dsn), found)
    except UnsupportedServer as exc:
        fix = [
            f"ALTER ROLE {as_identifier(role)} RESET gin_fuzzy_search_limit",
            f"ALTER DATABASE {as_identifier(on.database)} RESET gin_fuzzy_search_limit",
        ]
        yield wrong("gin-limit", str(exc), "gin_fuzzy_search_limit", found["gin_fuzzy_search_limit"], fix=fix)
        return
    for name, value in missing.items():
        yield warn(
            "session-setting",
            f"{name} is {found[name]}, {_WITHOUT[name]}: set it for the role, and reconnect the pooler",
            name,
            found[name],
            fix=[f"ALTER ROLE {as_identifier(role)} SET {name} = '{value}'"],
        )
    if not missing:
        yield good("session-setting", "sessions have the settings that document calls need")


def check_connections(on: Examination) -> Iterator[Finding]:
    """Check that others have left connections."""
    (found,) = on.rows("connections")
    free = found.most - found.used
    if free <= _FEW_FREE:
        yield warn(
            "free-connections",
            f"{max(free, 0)} of {found.most} connections free, and any role may take them: limit the roles that need "
            "few (ALTER ROLE ... CONNECTION LIMIT), or raise max_connections and restart the server",
            "max_connections",
            free,
            fix=set_for_server("max_connections", str(found.setting * 2), restarts=True),
        )
    else:
        yield good("free-connections", f"{free} of {found.most} connections free", "max_connections", free)


def check_clock(on: Examination) -> Iterator[Finding]:
    """Compare the server's clock with this machine's, and with the times that it has stored."""
    before = datetime.now(UTC)
    ((now,),) = on.rows("clock")
    after = datetime.now(UTC)
    skew_s = max((before - now).total_seconds(), (now - after).total_seconds(), 0.0)
    if skew_s > _MUCH_SKEW_S:
        yield warn(
            "clock",
            f"the clocks of the server and of this machine differ by {render_seconds(skew_s)}: delays that programs "
            "here compute from events are wrong by that; synchronize both with NTP",
            value=round(skew_s, 3),
        )
    else:
        yield good("clock", "the clocks of the server and of this machine agree", value=round(skew_s, 3))


def check_disk(on: Examination) -> Iterator[Finding]:
    """Check what bounds the WAL that slots keep, and how much there is."""
    limit = on.settings["max_slot_wal_keep_size"]
    if limit.value == "-1":
        yield warn(
            "slot-wal-limit",
            "max_slot_wal_keep_size is unlimited, so a slot that nobody reads can fill the disk: set it, for example "
            "to 10GB",
            "max_slot_wal_keep_size",
            -1,
            fix=set_for_server("max_slot_wal_keep_size", "10GB"),
        )
    else:
        yield good(
            "slot-wal-limit",
            f"slots can retain up to {limit.shown} of WAL (max_slot_wal_keep_size)",
            "max_slot_wal_keep_size",
            limit.shown,
        )
    if not on.reads_stats:
        yield unseen("wal-size", "the role may not see how much WAL there is", fix=_monitor(on))
        return
    (found,) = on.rows("wal_size")
    text = f"pg_wal has {render_bytes(found.size)}; doctor can't see how much room its disk has left"
    yield good("wal-size", text, "pg_wal", found.size)
    if found.failed_since is not None:
        yield warn(
            "archiver",
            f"archive_command or archive_library has failed since {found.failed_since:%Y-%m-%d %H:%M:%S%z}, so no WAL "
            "is removed and the disk will fill: the server's log says why",
            "archive_command",
            found.failures,
        )


def _monitor(on: Examination) -> list[str]:
    return [f"GRANT pg_monitor TO {on.quoted_role}"]
