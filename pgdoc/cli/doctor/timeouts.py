"""Checks of time limits, and of other settings of the role that make calls fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.cli.doctor.commands import set_for_server
from pgdoc.cli.doctor.examination import render_seconds
from pgdoc.cli.doctor.finding import good, warn, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_idle_slots", "check_role_settings", "check_time_limits", "check_walsender_limit"]

_SHORT_WALSENDER_S: Final = 10.0
_LONG_KEEPALIVE_S: Final = 600.0
_SHORT_IDLE_SLOT_S: Final = 86_400.0

_SHORT: Final = {
    "statement_timeout": (30.0, "a find of many documents, and the build of an index, can take longer and then fails"),
    "transaction_timeout": (30.0, "a transaction that loads many documents can take longer and then fails"),
    "lock_timeout": (1.0, "a write that waits for another one of the same document fails after that"),
    "idle_session_timeout": (60.0, "the server ends connections of the pool, and calls open new ones all the time"),
    "idle_in_transaction_session_timeout": (
        10.0,
        "a transaction in which the program computes for longer is rolled back",
    ),
}
"""Below how many seconds a limit of the role is reported, and why."""


def check_time_limits(on: Examination) -> Iterator[Finding]:
    """Check the limits that apply to document calls: streams and consumers set their own."""
    for name, (limit_s, why) in _SHORT.items():
        seconds = on.seconds_of(name)
        if 0 < seconds < limit_s:
            shown = on.settings[name].shown
            yield warn("short-timeout", f"{name} is {shown} for this role: {why}", name, shown, fix=on.reset(name))
    if not on.has_slots_that_stay:
        return
    if on.seconds_of("idle_in_transaction_session_timeout") == 0:
        yield warn(
            "idle-in-transaction",
            "nothing ends a transaction that a program leaves open (idle_in_transaction_session_timeout is 0), and all "
            "slots keep the WAL since it began",
            "idle_in_transaction_session_timeout",
            0,
            fix=set_for_server("idle_in_transaction_session_timeout", "10min"),
        )
    yield from _keepalives(on)


def _keepalives(on: Examination) -> Iterator[Finding]:
    found = on.settings.get("tcp_keepalives_idle")
    if found is not None and found.seconds > _LONG_KEEPALIVE_S:  # 0 for a Unix socket
        yield warn(
            "tcp-keepalives",
            f"the server notices only after {render_seconds(found.seconds)} that the machine of an idle client is gone "
            "(tcp_keepalives_idle): until then its session keeps its locks and its transaction",
            "tcp_keepalives_idle",
            int(found.value),
            fix=set_for_server("tcp_keepalives_idle", "60"),
        )


def check_role_settings(on: Examination) -> Iterator[Finding]:
    """Check the settings of a role that make calls fail, whatever they do."""
    if on.text_of("default_transaction_read_only") == "on" and not on.in_recovery:
        yield wrong(
            "role-read-only",
            f'default_transaction_read_only is on for the role "{on.role}", so every write fails',
            "default_transaction_read_only",
            "on",
            fix=on.reset("default_transaction_read_only"),
        )
    if on.text_of("exit_on_error") == "on":
        yield warn(
            "role-exit-on-error",
            f'exit_on_error is on for the role "{on.role}", so each error of the server costs a connection',
            "exit_on_error",
            "on",
            fix=on.reset("exit_on_error"),
        )


def check_walsender_limit(on: Examination) -> Iterator[Finding]:
    """Check `wal_sender_timeout`."""
    found = on.settings["wal_sender_timeout"]
    fix = set_for_server("wal_sender_timeout", "60s")
    if found.seconds == 0:
        yield warn(
            "wal-sender-timeout",
            "wal_sender_timeout is 0, so the server never ends the walsender of a standby whose machine is gone, and "
            "its slot stays busy; streams of pgdoc set a limit of their own",
            "wal_sender_timeout",
            0,
            fix=fix,
        )
    elif found.seconds < _SHORT_WALSENDER_S:
        yield warn(
            "wal-sender-timeout",
            f"wal_sender_timeout is {found.shown}: a short pause of the network or of a program ends its streams, "
            "which then reconnect",
            "wal_sender_timeout",
            found.shown,
            fix=fix,
        )
    else:
        yield good("wal-sender-timeout", f"wal_sender_timeout is {found.shown}", "wal_sender_timeout", found.shown)


def check_idle_slots(on: Examination) -> Iterator[Finding]:
    """Check the limit of PostgreSQL 18 after which a slot that nobody reads is lost."""
    limit_s = on.seconds_of("idle_replication_slot_timeout")
    if limit_s == 0:
        return
    shown = on.text_of("idle_replication_slot_timeout")
    fix = set_for_server("idle_replication_slot_timeout", "0")
    idle = max((slot.idle_s or 0.0 for slot in on.rows("slots") if slot.is_ours and not slot.active), default=0.0)
    if limit_s < _SHORT_IDLE_SLOT_S or idle > limit_s / 2:
        yield warn(
            "idle-slot-timeout",
            f"idle_replication_slot_timeout is {shown}: a consumer that stays closed for longer loses its position, "
            f"and so do bookmarks, which nobody reads; one slot of pgdoc has been idle for {render_seconds(idle)}",
            "idle_replication_slot_timeout",
            shown,
            fix=fix,
        )
    else:
        yield good(
            "idle-slot-timeout",
            f"slots that nobody reads for {shown} are lost (idle_replication_slot_timeout)",
            "idle_replication_slot_timeout",
            shown,
        )
