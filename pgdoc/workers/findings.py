"""What `worker.check()` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.streams.status import ConsumerStatus, Status
    from pgdoc.workers.registration import Registration

__all__ = [
    "WorkerFinding",
    "consumer_finding",
    "handler_findings",
    "letter_findings",
    "passed",
    "refused",
    "rights_finding",
    "server_finding",
    "warned",
]


@dataclass(frozen=True, slots=True)
class WorkerFinding:
    """What `worker.check()` has found.

    Attributes:
        id: names the kind of finding, and stays the same in all versions.
        verdict: `ok`; `warn`, if the worker runs, and something may go wrong; or `wrong`, if it can't run.
        consumer: the name of the consumer that it is about, if it is about one.
        handler: the name of the handler, if it is about one.
        text: the finding, and the next step.
        fix: the commands that mend it, in order: of a shell if they begin with `pgdoc`, else SQL.
    """

    id: str
    verdict: str
    consumer: str | None
    handler: str | None
    text: str
    fix: tuple[str, ...] = ()


def passed(finding_id: str, text: str, consumer: str | None = None, handler: str | None = None) -> WorkerFinding:
    """Return a finding with nothing to do."""
    return WorkerFinding(finding_id, "ok", consumer, handler, text)


def warned(
    finding_id: str, text: str, consumer: str | None = None, handler: str | None = None, *, fix: Iterable[str] = ()
) -> WorkerFinding:
    """Return a finding about what may go wrong."""
    return WorkerFinding(finding_id, "warn", consumer, handler, text, tuple(fix))


def refused(
    finding_id: str, text: str, consumer: str | None = None, handler: str | None = None, *, fix: Iterable[str] = ()
) -> WorkerFinding:
    """Return a finding about what keeps the worker from running."""
    return WorkerFinding(finding_id, "wrong", consumer, handler, text, tuple(fix))


def handler_findings(registrations: Iterable[Registration]) -> list[WorkerFinding]:
    """Return what each handler takes, and whether there are any."""
    found = [_handler_finding(each) for each in registrations]
    return found or [
        refused("worker-no-handlers", "the worker has no handlers: decorate functions with @worker.on(...)")
    ]


def _handler_finding(registration: Registration) -> WorkerFinding:
    times = "once" if registration.takes_tx else "at least once"
    text = f"{registration.described}: each event {times}"
    return passed("worker-handler", text, registration.consumer, registration.name)


def server_finding(status: Status) -> WorkerFinding:
    """Return which server it is."""
    text = f"PostgreSQL {status.server_version}, database {status.database}, catalog {status.catalog}"
    return passed("worker-server", text)


def consumer_finding(name: str, found: ConsumerStatus | None, schema: str) -> WorkerFinding:
    """Return whether the worker can open a consumer, and who has it open."""
    if found is None:
        return warned(
            "worker-consumer-missing",
            f"consumer {name} does not exist: the worker creates it when it runs, and its handlers miss what is "
            "written before; worker.declare() or `pgdoc worker MODULE:NAME --declare` creates it now",
            name,
        )
    if found.schema != schema:
        text = f"consumer {name} reads schema {found.schema}, not {schema}: use another name, or the store's schema="
        return refused("worker-consumer-schema", text, name)
    if found.unreadable is not None:
        return refused(
            "worker-consumer-unreadable",
            f"consumer {name} can't read the transaction that commits at {found.unreadable}: let it pass that one",
            name,
            fix=[f"pgdoc consumers skip {name}"],
        )
    if found.wal_status in {None, "lost"}:
        lost = "its slot" if found.wal_status is None else "the WAL of its slot"
        return refused(
            "worker-consumer-lost",
            f"consumer {name} has lost {lost}: opening it finds the position again if history reaches back to it; "
            "otherwise let it begin anew from now, and rebuild what it feeds",
            name,
            fix=[f"pgdoc consumers recreate {name}"],
        )
    if found.owner_pid is not None:
        text = f"consumer {name} is open in the session with pid {found.owner_pid}: the worker stands by for it"
        return passed("worker-consumer-open", text, name)
    return passed("worker-consumer", f"consumer {name} exists, and nobody has it open", name)


def rights_finding(role: str, lacking: Iterable[tuple[str, list[str]]]) -> WorkerFinding:
    """Return what a role lacks on the catalog's tables, given as (table, rights)."""
    lacks = {name: rights for name, rights in lacking if rights}
    if not lacks:
        return passed("worker-rights", "the role has the rights on the catalog's tables")
    shown = ", ".join(f"{' and '.join(rights)} on {name}" for name, rights in lacks.items())
    fix = [f"GRANT {', '.join(rights)} ON {name} TO {role}" for name, rights in lacks.items()]
    text = f"role {role} lacks {shown}: `pgdoc grant ROLE --as streamer`, as a superuser, prints all that it needs"
    return refused("worker-rights", text, fix=fix)


def letter_findings(
    known: set[tuple[str, str]], stored: Iterable[tuple[str, str]], letters: Iterable[tuple[str, str, str, int]]
) -> Iterable[WorkerFinding]:
    """Yield findings on what the catalog has of handlers.

    Args:
        known: the worker's handlers, as (consumer, handler).
        stored: those that have a position.
        letters: their dead letters, as (consumer, handler, state, count).
    """
    for consumer, handler in sorted(set(stored) - known):
        yield warned(
            "worker-handler-gone",
            f'a handler "{handler}" has a position at consumer {consumer}, and the worker has none of that name: if it '
            "was renamed, pass its former name as name=, or the new one begins where the consumer stands",
            consumer,
            handler,
        )
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for consumer, handler, state, count in letters:
        counts.setdefault((consumer, handler), {})[state] = count
    for (consumer, handler), states in sorted(counts.items()):
        shown = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        rest = "" if (consumer, handler) in known else "; the worker has no such handler, so nothing tries them again"
        text = f'handler "{handler}" has dead letters: {shown}{rest}'
        yield warned("worker-dead-letters", text, consumer, handler, fix=["pgdoc dead-letters list"])
