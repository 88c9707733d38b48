"""Checks of what a failover to a standby needs, from PostgreSQL 17 on: the primary's side, and the standby's.

A consumer survives a failover if its slot has the flag `failover`, the standby copies it (`sync_replication_slots`),
and no consumer gets further than the standby (`synchronized_standby_slots`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.cli.doctor.commands import as_identifier, as_literal, set_for_server, set_list_for_server
from pgdoc.cli.doctor.finding import good, unseen, warn, wrong
from pgdoc.database.conninfo import parse_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_primary", "check_standby"]

_FIRST_VERSION: Final = 17
_ADD_DBNAME: Final = (
    "SELECT format('ALTER SYSTEM SET primary_conninfo = %L', current_setting('primary_conninfo') || ' "
    "dbname=postgres') "
    "\\gexec"
)


def check_primary(on: Examination) -> Iterator[Finding]:
    """Check the primary's side."""
    if on.version < _FIRST_VERSION or on.in_recovery:
        return
    slots = on.rows("slots")
    consumers = [slot for slot in slots if slot.is_consumers and slot.is_here]
    physical = {slot.name: slot for slot in slots if slot.type == "physical"}
    listed = _names_in(on.text_of("synchronized_standby_slots"))
    yield from _listed_slots(listed, physical)
    if not on.reads_stats:
        yield unseen(
            "standbys-unseen",
            "the role may not see whether standbys are connected",
            fix=[f"GRANT pg_read_all_stats TO {on.quoted_role}"],
        )
        return
    standbys = on.rows("standbys")
    if not standbys and not physical:
        return
    yield from _consumer_slots(consumers)
    if not standbys:
        yield warn("no-standby", "no standby is connected, so there is nothing to fail over to")
    for standby in standbys:
        yield from _standby(standby, physical)
    yield from _leaders(listed, physical, consumers)
    if any(slot.is_failover for slot in consumers) and standbys:
        yield from _sync_worker(on)


def _names_in(setting: str) -> list[str]:
    """Return the names of a setting with a list of slots, whose names need no quotes."""
    return [name.strip().strip('"') for name in setting.split(",") if name.strip()]


def _listed_slots(listed: list[str], physical: dict[str, Any]) -> Iterator[Finding]:
    """Check the slots for which the streams of failover slots wait."""
    rest = [name for name in listed if name in physical and _is_read(physical[name])]
    for name in listed:
        if name in rest:
            continue
        slot = physical.get(name)
        state = "does not exist" if slot is None else "has lost its WAL" if slot.wal_status == "lost" else "is inactive"
        yield wrong(
            "standby-slot",
            f'synchronized_standby_slots lists the slot "{name}", which {state}: consumers with failover slots wait '
            "for it and get nothing; connect the standby through it, or take it out of the list",
            name,
            state,
            fix=set_list_for_server("synchronized_standby_slots", rest),
        )


def _is_read(slot: Any) -> bool:
    return bool(slot.active) and slot.wal_status != "lost"


def _consumer_slots(consumers: list[Any]) -> Iterator[Finding]:
    without = [slot for slot in consumers if not slot.is_failover]
    for slot in without:
        yield warn(
            "failover-flag",
            f'the slot of consumer "{slot.consumer}" is not a failover slot, so a standby that is promoted does not '
            "have it: open the consumer again, or run the command on a connection with replication=database",
            slot.consumer,
            slot.name,
            fix=[f"ALTER_REPLICATION_SLOT {as_identifier(slot.name)} (FAILOVER true)"],
        )
    if consumers and not without:
        yield good("failover-flag", "the slots of all consumers are failover slots", value=len(consumers))


def _standby(standby: Any, physical: dict[str, Any]) -> Iterator[Finding]:
    if standby.slot is None:
        yield _without_slot(standby, [name for name, slot in physical.items() if not slot.active])
    elif not physical[standby.slot].has_feedback:
        yield warn(
            "standby-feedback",
            f'standby "{standby.name}" reports no rows that it needs (hot_standby_feedback is off there), so it can\'t '
            "copy slots: run the commands on the standby",
            standby.name,
            standby.slot,
            fix=set_for_server("hot_standby_feedback", "on"),
        )
    else:
        yield good("standby", f'standby "{standby.name}" reads slot "{standby.slot}"', standby.name, standby.slot)


def _without_slot(standby: Any, unused: list[str]) -> Finding:
    found = f'standby "{standby.name}" uses no replication slot, and copies no slots without one: set primary_slot_name'
    if len(unused) == 1:
        text = f'{found} on the standby to "{unused[0]}", which no standby uses: run the commands on the standby'
        fix = set_for_server("primary_slot_name", unused[0])
    else:
        text = f"{found} on the standby to a slot that you create"
        fix = [f"SELECT pg_create_physical_replication_slot({as_literal(_slot_for(standby.name))})"]
    return warn("standby-without-slot", text, standby.name, fix=fix)


def _slot_for(standby: str) -> str:
    allowed = "".join(sign if sign.isascii() and (sign.isalnum() or sign == "_") else "_" for sign in standby.lower())
    return allowed[:60] or "standby_1"


def _leaders(listed: list[str], physical: dict[str, Any], consumers: list[Any]) -> Iterator[Finding]:
    """Check that no consumer can get ahead of the standby."""
    active = [name for name, slot in physical.items() if slot.active]
    if active and not listed and any(slot.is_failover for slot in consumers):
        yield warn(
            "decoding-outruns-standby",
            "synchronized_standby_slots is empty, so consumers can be ahead of the standby, and lose what is between "
            "when it is promoted",
            "synchronized_standby_slots",
            "",
            fix=set_list_for_server("synchronized_standby_slots", active),
        )


def _sync_worker(on: Examination) -> Iterator[Finding]:
    if on.rows("sync_workers"):
        yield good("slot-sync", "a standby copies slots at the moment")
    else:
        yield warn(
            "slot-sync",
            "no standby is connected to copy slots: run the commands on the standby, and have dbname in its "
            "primary_conninfo",
            "sync_replication_slots",
            fix=set_for_server("sync_replication_slots", "on"),
        )


def check_standby(on: Examination) -> Iterator[Finding]:
    """Check the standby's side, if the server is one."""
    if on.version < _FIRST_VERSION or not on.in_recovery:
        return
    for setting, why in (
        (
            "sync_replication_slots",
            "this standby copies no slots, so consumers lose their positions when it is promoted",
        ),
        ("hot_standby_feedback", "the primary may remove what the copied slots need"),
    ):
        value = on.text_of(setting)
        if value != "on":
            text = f"{setting} is {value}: {why}"
            yield wrong("standby-setting", text, setting, value, fix=set_for_server(setting, "on"))
    if not on.text_of("primary_slot_name"):
        yield wrong(
            "primary-slot-name",
            "primary_slot_name is not set, and slots are copied only through a slot: create one on the primary",
            "primary_slot_name",
            "",
            fix=set_for_server("primary_slot_name", "standby_1"),
        )
    yield from _primary_conninfo(on)
    yield from _listed_on_standby(on)
    yield from _copies(on)


def _listed_on_standby(on: Examination) -> Iterator[Finding]:
    """Check the list that counts after a promotion; a base backup copies it from the primary."""
    here = {slot.name for slot in on.rows("slots") if slot.type == "physical"}
    listed = _names_in(on.text_of("synchronized_standby_slots"))
    for name in listed:
        if name not in here:
            yield warn(
                "standby-lists-slot",
                f'synchronized_standby_slots lists the slot "{name}", which this standby does not have: once it is '
                "promoted, consumers with failover slots wait for it and get nothing; take it out of the list",
                name,
                "does not exist",
                fix=set_list_for_server("synchronized_standby_slots", [other for other in listed if other in here]),
            )


def _primary_conninfo(on: Examination) -> Iterator[Finding]:
    if not on.reads_settings:
        yield unseen(
            "primary-conninfo",
            "the role may not see primary_conninfo, which needs a dbname",
            "primary_conninfo",
            fix=[f"GRANT pg_read_all_settings TO {on.quoted_role}"],
        )
        return
    text = on.text_of("primary_conninfo")
    if text and not parse_conninfo(text).get("dbname"):
        yield wrong(
            "primary-conninfo",
            "primary_conninfo has no dbname, so the standby can't copy slots: add it; the command is for psql, and "
            "shows no password",
            "primary_conninfo",
            fix=[] if "://" in text else [_ADD_DBNAME, "SELECT pg_reload_conf()"],
        )


def _copies(on: Examination) -> Iterator[Finding]:
    for slot in on.rows("slots"):
        if not (slot.is_consumers and slot.is_failover and slot.is_here):
            continue
        if not slot.is_synced or slot.temporary:
            yield warn(
                "slot-not-ready",
                f'the copy of the slot of consumer "{slot.consumer}" is not ready: it becomes so when the consumer has '
                "read on at the primary; until then a promotion loses its position",
                slot.consumer,
                slot.name,
            )
        else:
            text = f'the slot of consumer "{slot.consumer}" is copied, and ready'
            yield good("slot-ready", text, slot.consumer, slot.name)
