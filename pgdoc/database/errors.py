"""psycopg's exceptions in, pgdoc's out: the one place where document and catalog calls do so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import psycopg_pool

from pgdoc.errors import CollectionNotFound, DatabaseError, DuplicateDocument, ServerUnreachable, StoreClosed

if TYPE_CHECKING:
    from pgdoc.errors import PgdocError


__all__ = ["connection_error", "map_error", "one_line"]

# Connection exceptions; too many connections; the server is shutting down, crashed, or starting up.
_UNREACHABLE = re.compile(r"08...|53300|57P0[1-3]")
_ID_IN_DETAIL = re.compile(r"\(id\)=\((.*)\)", re.DOTALL)  # of all languages that lc_messages can choose


def map_error(exc: psycopg.Error, subject: str) -> PgdocError:
    """Return the error of pgdoc that says what `exc` means.

    Args:
        exc: what psycopg raised; the caller keeps it as the cause: `raise translated(exc, ...) from exc`.
        subject: what the call was about, such as `collection "docs.orders"`.
    """
    if isinstance(exc, psycopg_pool.PoolClosed):
        return StoreClosed("the store was closed: open a new one")
    if isinstance(exc, psycopg_pool.PoolTimeout):
        return ServerUnreachable(f"{subject}: no connection of the pool became free, and none could be made: {exc}")
    if _lost_connection(exc):
        return ServerUnreachable(f"{subject}: the connection was lost: {exc}. The next call makes a new one")
    return _missing(exc, subject) or _refusal(exc, subject)


def _missing(exc: psycopg.Error, subject: str) -> CollectionNotFound | None:
    if isinstance(exc, psycopg.errors.WrongObjectType):
        return CollectionNotFound(f"{subject}: {_said(exc)}")
    if exc.diag.context is not None:  # a trigger or a function of the user ran into it
        return None
    if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return CollectionNotFound(f"{subject} does not exist: create it with store.create_collection")
    if isinstance(exc, psycopg.errors.UndefinedColumn):
        return CollectionNotFound(f"{subject} is a table, but no collection: {exc.diag.message_primary}")
    return None


def _refusal(exc: psycopg.Error, subject: str) -> PgdocError:
    if isinstance(exc, psycopg.errors.UniqueViolation):
        return _duplicate(exc, subject)
    return DatabaseError(f"{subject}: {_said(exc)}{_advice(exc)}", sqlstate=exc.sqlstate)


def _advice(exc: psycopg.Error) -> str:
    if isinstance(exc, psycopg.errors.InsufficientPrivilege) and not exc.diag.message_hint:
        return ". Grant it to the role, or let one do it that may"
    if exc.sqlstate is not None and exc.sqlstate.startswith("40"):  # a deadlock, or a serialization failure
        return ". Run the transaction again"
    if isinstance(exc, psycopg.errors.DuplicatePreparedStatement | psycopg.errors.InvalidSqlStatementName):
        return ". The conninfo leads to a pooler: give the server's own host and port as replication_conninfo"
    return ""


def _lost_connection(exc: psycopg.Error) -> bool:
    if exc.sqlstate is None:
        return isinstance(exc, psycopg.OperationalError)
    return _UNREACHABLE.fullmatch(exc.sqlstate) is not None


def _duplicate(exc: psycopg.Error, subject: str) -> DuplicateDocument:
    found = _ID_IN_DETAIL.search(exc.diag.message_detail or "")
    if found is None:
        return DuplicateDocument(f"{subject}: {_said(exc)}")
    return DuplicateDocument(f"{subject} has a document {found[1]!r} already", document_id=found[1])


def _said(exc: psycopg.Error) -> str:
    parts = (exc.diag.message_primary or str(exc), exc.diag.message_detail, exc.diag.message_hint)
    return ". ".join(part.rstrip(".") for part in parts if part)


_ADVICE = {
    "pg_hba.conf": "add a line for this role, database and address to pg_hba.conf",
    "password": "check the role and the password of the conninfo",
    "does not exist": "check the role and the database of the conninfo",
}


def connection_error(exc: psycopg.Error) -> PgdocError:
    """Return the error of pgdoc for a connection that was not made; libpq's text names host, port and reason."""
    text = one_line(exc)
    if isinstance(exc, psycopg.ProgrammingError):
        return DatabaseError(f"the conninfo can't be read: {text}")
    for mark, advice in _ADVICE.items():
        if mark in text:
            return DatabaseError(f"{text}: {advice}")
    return ServerUnreachable(f"no connection to the server: {text}; check the conninfo, and that the server runs there")


def one_line(exc: psycopg.Error) -> str:
    """Give what the server or libpq said, without libpq's questions to the user, which it sets off by a tab."""
    text = exc.diag.message_primary or "\n".join(line for line in str(exc).splitlines() if not line.startswith("\t"))
    return " ".join(text.split()).removeprefix("connection failed: ").rstrip(".")
