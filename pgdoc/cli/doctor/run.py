"""The checks of `pgdoc doctor`, in order, and how they are run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from pgdoc.cli.doctor.catalog import check_catalog, check_coverage, check_event_triggers
from pgdoc.cli.doctor.collations import check_collations
from pgdoc.cli.doctor.consumers import check_consumers, check_history
from pgdoc.cli.doctor.documents import check_expiry, check_sizes
from pgdoc.cli.doctor.examination import Examination, begin_examination
from pgdoc.cli.doctor.failover import check_primary, check_standby
from pgdoc.cli.doctor.finding import unseen, wrong
from pgdoc.cli.doctor.groups import check_groups, check_unnamed_logs
from pgdoc.cli.doctor.letters import check_dead_letters
from pgdoc.cli.doctor.replication import check_plugins, check_replication, check_standby_names, check_stream
from pgdoc.cli.doctor.server import (
    check_clock,
    check_connections,
    check_disk,
    check_kind,
    check_rights,
    check_session,
)
from pgdoc.cli.doctor.slots import check_ids, check_room, check_slots, check_transactions
from pgdoc.cli.doctor.tables import check_tables
from pgdoc.cli.doctor.timeouts import check_idle_slots, check_role_settings, check_time_limits, check_walsender_limit
from pgdoc.cli.doctor.watched import check_watched_tables
from pgdoc.cli.stores import DEFAULT_SCHEMA, conninfo_of_command, explain_missing_dsn
from pgdoc.database.errors import one_line
from pgdoc.database.examination import connect_examiner, look_only
from pgdoc.errors import PgdocError
from pgdoc.model.names import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from pgdoc.cli.doctor.finding import Finding

__all__ = ["examine_server"]


class DoctorCheck(NamedTuple):
    """A check, and the subject of its findings.

    Attributes:
        on_standby: whether a standby in recovery can answer it.
    """

    subject: str
    examine: Callable[[Examination], Iterator[Finding]]
    on_standby: bool = False


_OF_THE_SERVER: Final = (
    DoctorCheck("server", check_kind, on_standby=True),
    DoctorCheck("rights", check_rights, on_standby=True),
    DoctorCheck("settings", check_session, on_standby=True),
    DoctorCheck("settings", check_role_settings, on_standby=True),
    DoctorCheck("replication", check_replication, on_standby=True),
    DoctorCheck("replication", check_plugins, on_standby=True),
    DoctorCheck("replication", check_room, on_standby=True),
    DoctorCheck("replication", check_walsender_limit, on_standby=True),
    DoctorCheck("connections", check_connections, on_standby=True),
    DoctorCheck("timeouts", check_time_limits, on_standby=True),
    DoctorCheck("timeouts", check_idle_slots, on_standby=True),
    DoctorCheck("clock", check_clock, on_standby=True),
    DoctorCheck("standbys", check_standby_names),
    DoctorCheck("failover", check_primary),
    DoctorCheck("failover", check_standby, on_standby=True),
    DoctorCheck("disk", check_disk, on_standby=True),
    DoctorCheck("slots", check_slots, on_standby=True),
    DoctorCheck("ids", check_ids, on_standby=True),
    DoctorCheck("transactions", check_transactions),
)

_CATALOG: Final = DoctorCheck("catalog", check_catalog, on_standby=True)

_OF_THE_CATALOG: Final = (
    DoctorCheck("catalog", check_event_triggers, on_standby=True),
    DoctorCheck("catalog", check_coverage, on_standby=True),
    DoctorCheck("tables", check_tables, on_standby=True),
    DoctorCheck("watched", check_watched_tables, on_standby=True),
    DoctorCheck("collations", check_collations),
    DoctorCheck("sizes", check_sizes),
    DoctorCheck("expiry", check_expiry),
    DoctorCheck("history", check_history),
    DoctorCheck("consumers", check_consumers),
    DoctorCheck("workers", check_dead_letters),
    DoctorCheck("groups", check_unnamed_logs, on_standby=True),
)

_GIVEN_UP: Final = {
    psycopg.errors.LockNotAvailable: "; another session locks what it reads (pg_locks): run it again after that",
    psycopg.errors.QueryCanceled: "; the server is too busy, or it has too much to read: run it again later",
}
"""What to do about a check that took too long."""

_STREAM: Final = DoctorCheck("streams", check_stream)
_GROUPS: Final = DoctorCheck("groups", check_groups, on_standby=True)


def examine_server(
    dsn: str, schema: str = DEFAULT_SCHEMA, *, only: Collection[str] = (), log_url: str = ""
) -> Iterator[Finding]:
    """Run the checks. One that fails becomes a finding, and the next one runs. None changes anything.

    Args:
        dsn: of the database.
        schema: has the tables, indexes and streams to check.
        only: the subjects to check; all by default.
        log_url: of the log whose groups are checked.
    """
    check_name(schema, "schema")
    try:
        connection = _connect(dsn)
    except PgdocError as exc:
        yield _named("connection", wrong("connection", str(exc)))
        return
    with connection:
        try:
            on = begin_examination(connection, dsn, schema, log_url)
        except psycopg.Error as exc:
            yield _named("connection", wrong("connection", f"the connection was lost: {one_line(exc)}"))
            return
        yield from _examine(on, frozenset(only))


def _examine(on: Examination, only: frozenset[str]) -> Iterator[Finding]:
    def wanted(checks: Iterable[DoctorCheck]) -> list[DoctorCheck]:
        return [check for check in checks if not only or check.subject in only]

    for check in wanted(_OF_THE_SERVER):
        yield from _run(check, on)
    if not wanted((_CATALOG, *_OF_THE_CATALOG, _STREAM, _GROUPS)):
        return
    catalog = list(_run(_CATALOG, on))
    yield from catalog
    if any(finding.verdict == "wrong" for finding in catalog):
        return
    for check in wanted(_OF_THE_CATALOG):
        yield from _run(check, on)
    for check in wanted((_STREAM, _GROUPS)):
        if check.on_standby or not on.in_recovery:
            yield from _run_alone(check, on)


def _connect(dsn: str) -> psycopg.Connection[Any]:
    try:
        return connect_examiner(conninfo_of_command("doctor", dsn))
    except PgdocError as exc:
        raise (exc if dsn else explain_missing_dsn(exc)) from exc


def _run(check: DoctorCheck, on: Examination) -> Iterator[Finding]:
    """Run one check, whose findings are complete before the next begins."""
    if on.in_recovery and not check.on_standby:
        return
    if on.connection.closed:
        yield _named(check.subject, unseen("check-failed", "the connection was lost before this check"))
        return
    found: list[Finding] = []
    try:
        with look_only(on.connection):
            for finding in check.examine(on):
                found.append(finding)  # noqa: PERF402 (those before an error are kept)
    except Exception as exc:  # noqa: BLE001 (a fault of one check must not hide the others)
        found.append(_failure(exc, on))
    yield from (_named(check.subject, finding) for finding in found)


def _run_alone(check: DoctorCheck, on: Examination) -> Iterator[Finding]:
    """Run a check that has connections of its own."""
    try:
        found = list(check.examine(on))
    except (PgdocError, psycopg.Error) as exc:
        text = one_line(exc)
        found = [wrong("stream", text, on.schema) if check is _STREAM else wrong("groups-log", text)]
    yield from (_named(check.subject, finding) for finding in found)


def _failure(exc: Exception, on: Examination) -> Finding:
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        text = f'the role "{on.role}" may not see this: {one_line(exc)}'
        return unseen("check-refused", text, on.role)
    found = one_line(exc) if isinstance(exc, psycopg.Error | PgdocError) else repr(exc)
    advice = next((said for kind, said in _GIVEN_UP.items() if isinstance(exc, kind)), "")
    return wrong("check-failed", f"this check failed: {found}{advice}")


def _named(subject: str, finding: Finding) -> Finding:
    return replace(finding, subject=subject)
