"""Checks of the dead letters of workers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.cli.doctor.commands import for_shell
from pgdoc.cli.doctor.finding import good, unseen, warn
from pgdoc.cli.render import render_delay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_dead_letters"]

_OLD: Final = timedelta(days=1)
_MANY: Final = 1000
_READ: Final = "pgdoc.dead_letters, pgdoc.handlers, pgdoc.consumers, pgdoc.owners"


def check_dead_letters(on: Examination) -> Iterator[Finding]:
    """Check the dead letters of the workers of all schemas."""
    try:
        with on.connection.transaction():
            found = on.rows("dead_letters")
    except psycopg.errors.InsufficientPrivilege:
        yield unseen(
            "dead-letters-unseen",
            f'the role "{on.role}" may not read the dead letters of workers, which contain documents: let the owner of '
            "the catalog grant it",
            on.role,
            fix=[f"GRANT SELECT ON {_READ} TO {on.quoted_role}"],
        )
        return
    if not found:
        yield good("dead-letters", "no handler of a worker has dead letters", on.database, 0)
    for row in found:
        yield _of_handler(row)


def _of_handler(row: Any) -> Finding:
    handler = f"handler {row.handler} of consumer {row.consumer}"
    command = for_shell("pgdoc", "dead-letters", "list", "--consumer", row.consumer)
    if not row.has_consumer or row.is_run is False:
        gone = "which does not exist" if not row.has_consumer else "which no worker has: its worker runs without it"
        return warn(
            "dead-letters-orphaned",
            f"{handler}, {gone}, has left {_count(row.letters)}, which nothing tries again: drop them, or let a worker "
            "have the handler under this name",
            row.handler,
            row.letters,
            fix=[for_shell("pgdoc", "dead-letters", "drop", "--consumer", row.consumer, "--handler", row.handler)],
        )
    if row.due and not row.is_owned:
        return warn(
            "dead-letters-wait",
            f"{handler} is to try {_count(row.due)} again, but no worker has the consumer open: start it",
            row.handler,
            row.due,
        )
    age = row.now - row.oldest_dead if row.dead else timedelta()
    if age > _OLD or row.dead > _MANY:
        return warn(
            "dead-letters-left",
            f"{handler} could not process {row.dead} event{'' if row.dead == 1 else 's'}, the first "
            f"{render_delay(age)} ago: `{command}` says why; mend the cause, and then retry or drop them",
            row.handler,
            row.dead,
        )
    return good("dead-letters", f"{handler} has {_count(row.letters)}", row.handler, row.letters)


def _count(letters: int) -> str:
    return f"{letters} dead letter{'' if letters == 1 else 's'}"
