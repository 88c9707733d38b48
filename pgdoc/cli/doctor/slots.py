"""Checks of replication slots, pgdoc's own and those of others, and of what holds back WAL and transaction ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.cli.doctor.commands import as_literal, drop_slot_sql, for_libpq, for_shell, set_for_server
from pgdoc.cli.doctor.examination import render_seconds
from pgdoc.cli.doctor.finding import good, unseen, warn, wrong
from pgdoc.cli.render import render_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_ids", "check_room", "check_slots", "check_transactions"]

_LONG_TRANSACTION_S: Final = 60.0
_MUCH_WAL_BYTES: Final = 1 << 30
_FEW_FREE: Final = 2
_HELD_IDS_FACTOR: Final = 0.5
_OLD_IDS_FACTOR: Final = 1.1
_LAST_IDS: Final = 1_500_000_000
"""PostgreSQL refuses writes when about 2.1 billion transaction ids are in use."""


def check_room(on: Examination) -> Iterator[Finding]:
    """Check that slots and walsenders are left."""
    (found,) = on.rows("room")
    yield _room("replication slots", found.slots, found.max_slots, "max_replication_slots")
    yield _room("walsenders", found.walsenders, found.max_walsenders, "max_wal_senders")


def _room(what: str, used: int, most: int, setting: str) -> Finding:
    free = max(most - used, 0)
    text = f"{free} of {most} {what} free"
    if free > _FEW_FREE:
        return good("room", text, setting, free)
    fix = set_for_server(setting, str(max(most * 2, 10)), restarts=True)
    verdict = wrong if free == 0 else warn
    return verdict("room", f"{text}: raise {setting}, and restart the server", setting, free, fix=fix)


def check_slots(on: Examination) -> Iterator[Finding]:
    """Check all slots of the server: each keeps WAL on the same disk. The checks of consumers report theirs."""
    for slot in on.rows("slots"):
        if slot.wal_status == "lost":
            yield from _lost(slot)
        elif slot.retained is not None and slot.retained > _MUCH_WAL_BYTES:
            yield _retaining(slot)


def _lost(slot: Any) -> Iterator[Finding]:
    if slot.is_consumers:
        return
    reason = "" if slot.reason is None else f" ({slot.reason})"
    text = f'slot "{slot.name}" has lost its WAL{reason} and is useless'
    if slot.is_ours and slot.is_here:
        yield warn("slot-lost", text, slot.name, slot.reason, fix=[drop_slot_sql(slot.name)])
    else:
        yield warn(
            "other-slot-lost",
            f"{text}; {_belonging(slot)}: its owner has to make it again",
            slot.name,
            slot.reason,
            fix=[drop_slot_sql(slot.name)],
        )


def _retaining(slot: Any) -> Finding:
    text = f'slot "{slot.name}" retains {render_bytes(slot.retained)} of WAL'
    if slot.is_consumers and slot.is_here:
        consumer = slot.consumer
        drop = for_shell("pgdoc", "consumers", "drop", consumer)
        advice = f'open its consumer "{consumer}" so that it catches up, or drop the consumer'
        return warn("slot-retains-wal", f"{text}: {advice}", slot.name, slot.retained, fix=[drop])
    if slot.is_ours and slot.is_here:
        advice = "it keeps the history that streams resume from; `Store.set_history` limits its size"
        return warn("slot-retains-wal", f"{text}: {advice}", slot.name, slot.retained, fix=[drop_slot_sql(slot.name)])
    fix = [] if slot.active else [drop_slot_sql(slot.name)]
    state = "it is being read" if slot.active else "nobody reads it, so start its reader, or drop it"
    text = f"{text}; {_belonging(slot)}, and {state}"
    return warn("other-slot-retains-wal", text, slot.name, slot.retained, fix=fix)


def _belonging(slot: Any) -> str:
    if slot.type == "physical":
        return "it is that of a standby or a backup"
    return f'it is a slot of the database "{slot.database}"' if not slot.is_here else "it is not one of pgdoc's"


def check_transactions(on: Examination) -> Iterator[Finding]:
    """Check for transactions that keep WAL: while one is open, no slot can release what was written since."""
    of_unknown_age = []
    for found in on.rows("blockers"):
        if found.gid is not None:
            roll_back = f"ROLLBACK PREPARED {as_literal(found.gid)}"
            yield warn(
                "prepared-transaction",
                f'prepared transaction "{found.gid}" of the database "{found.database}", '
                f"{render_seconds(found.age_s)} old, keeps WAL: commit it or roll it back, in that database",
                found.gid,
                round(found.age_s, 3),
                fix=[roll_back],
            )
        elif found.age_s is None:
            of_unknown_age.append(str(found.pid))
        elif found.age_s > _LONG_TRANSACTION_S:
            yield warn(
                "long-transaction",
                f"pid {found.pid} has a write transaction open for {render_seconds(found.age_s)}, which keeps WAL",
                str(found.pid),
                round(found.age_s, 3),
                fix=[f"SELECT pg_terminate_backend({found.pid})"],
            )
    if of_unknown_age:
        yield unseen(
            "transactions-unseen",
            f"write transactions of other roles are open (pid {', '.join(of_unknown_age)}), and the role may not see "
            "for how long",
            value=len(of_unknown_age),
            fix=[f"GRANT pg_read_all_stats TO {on.quoted_role}"],
        )


def check_ids(on: Examination) -> Iterator[Finding]:
    """Check how many transaction ids slots hold back, and how near the databases are to the last one."""
    most = int(on.settings["autovacuum_freeze_max_age"].value)
    for slot in on.rows("slots"):
        if slot.xid_age is not None and slot.xid_age > most * _HELD_IDS_FACTOR:
            yield _holding_ids(slot)
    rows = on.rows("oldest_ids")
    old = [found for found in rows if found.age > most * _OLD_IDS_FACTOR]
    for found in old:
        verdict = wrong if found.age > _LAST_IDS else warn
        yield verdict(
            "wraparound",
            f'database "{found.name}" has rows that are {found.age:,} transactions old, beyond '
            f"autovacuum_freeze_max_age ({most:,}): autovacuum does not keep up, or a slot, a prepared or a long "
            "transaction keeps it from freezing them; at 2.1 billion the server refuses all writes",
            found.name,
            found.age,
            fix=[for_shell("vacuumdb", "--freeze", f"--dbname={for_libpq(found.name)}")],
        )
    if not old:
        oldest = rows[0]
        yield good("wraparound", f"the oldest rows are {oldest.age:,} transactions old", oldest.name, oldest.age)


def _holding_ids(slot: Any) -> Finding:
    text = (
        f'slot "{slot.name}" holds back the removal of old rows of the system catalogs by {slot.xid_age:,} '
        "transactions (catalog_xmin)"
    )
    if slot.is_consumers and slot.is_here:
        fix = [for_shell("pgdoc", "consumers", "drop", slot.consumer)]
        text = f'{text}: open the consumer "{slot.consumer}" so that it catches up, or drop it'
    else:
        fix = [] if slot.active else [drop_slot_sql(slot.name)]
        text = f"{text}: {'let its reader catch up' if slot.active else 'start its reader, or drop it'}"
    return warn("slot-holds-ids", text, slot.name, slot.xid_age, fix=fix)
