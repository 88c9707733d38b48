"""Errors of the server, as those of a consumer."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.consumers.claims import RowLockedError
from pgdoc.database.errors import one_line
from pgdoc.database.quoting import identifier
from pgdoc.database.rights import Caller
from pgdoc.errors import DatabaseError
from pgdoc.replication.connection import map_replication_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.errors import PgdocError

_OUR_TABLES = re.compile(r"\b(consumers|consumer_progress|owners|unreadable)\b")
_OF_WORKERS = re.compile(r"\b(handlers|dead_letters)\b")


@contextlib.contextmanager
def mapped(connection: psycopg.Connection[Any], name: str) -> Iterator[None]:
    """Raise what the block's statements raise as an error about the consumer with this name."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as exc:
        raise RowLockedError(
            f'consumer "{name}": an open transaction holds its row, such as one with a checkpoint; end that '
            "transaction, or try again later",
            sqlstate=exc.sqlstate,
        ) from exc
    except psycopg.Error as exc:
        raise map_consumer_error(exc, connection) from exc


def map_consumer_error(exc: psycopg.Error, connection: psycopg.Connection[Any]) -> PgdocError:
    """Make an error that says which right to grant, if the role lacks one."""
    if exc.sqlstate != "42501":
        return map_replication_error(exc, connection)
    text, role = one_line(exc), connection.info.user
    if _OUR_TABLES.search(text):
        advice = Caller(role).to_have_consumers()
    elif _OF_WORKERS.search(text):
        advice = Caller(role).to_have_workers()
    else:  # A takeover ends sessions of the former owner, which may belong to another role.
        advice = f"open the consumer as the same role everywhere, or run GRANT pg_signal_backend TO {identifier(role)}"
    return DatabaseError(f"{text}: {advice}", sqlstate=exc.sqlstate)
