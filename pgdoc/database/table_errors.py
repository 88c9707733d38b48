"""The server's refusal of a table that can't be watched."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from pgdoc.errors import TableRefused

if TYPE_CHECKING:
    import psycopg

__all__ = ["needs_event_triggers", "not_added", "table_refused"]

_REFUSED: Final = "PGD05"
"""The SQLSTATE of `pgdoc.refuse_watching`."""


def table_refused(exc: psycopg.Error, name: str) -> TableRefused | None:
    """Return the refusal of the catalog; `None` for any other error."""
    if exc.sqlstate != _REFUSED:
        return None
    reason = (exc.diag.message_primary or "").partition("can't be watched: ")[2]
    return TableRefused(name, reason, exc.diag.message_hint or None)


def not_added(name: str) -> TableRefused:
    """Return the error for a table that is to be watched and was not added."""
    command = f"pgdoc tables add {shlex.quote(name)}"
    return TableRefused(name, "it was not added", f"call store.add_table({name!r}), or run `{command}`")


def needs_event_triggers(name: str) -> TableRefused:
    """Return the error for a table that is to be watched through wal2json, where no event trigger follows DDL.

    `name` is `.` for all watched tables.
    """
    return TableRefused(
        "any" if name == "." else name,
        "wal2json would leave out its rows while it has another name, and no event trigger follows that",
        'open the store with plugin="auto", or use a catalog that a superuser owns, which has event triggers',
    )
