"""Map psycopg's exceptions to pgdoc's, for connections, document calls and catalog calls.

`pgdoc.replication.connection` maps the exceptions of replication connections.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
import psycopg_pool

from pgdoc.database.schemas import schema_error
from pgdoc.database.size_errors import size_error
from pgdoc.database.violations import read_violation
from pgdoc.errors import (
    CollectionNotFound,
    CommitUnknown,
    DatabaseError,
    DuplicateDocument,
    PgdocError,
    RegistryUnbound,
    SerializationFailure,
    ServerUnreachable,
    StoreClosed,
    TransactionLost,
    UpgradePrepared,
)
from pgdoc.model.short_repr import short_repr

__all__ = [
    "FROZEN",
    "commit_error",
    "connection_error",
    "is_about_table",
    "is_conflict",
    "is_connection_loss",
    "is_retryable",
    "is_serialization_failure",
    "map_error",
    "one_line",
]

# Connection exceptions; too many connections; the server is shutting down, crashed, or starting up; the database was
# dropped; the session was idle for too long.
_UNREACHABLE = re.compile(r"08...|53300|57P0[1-5]")
# The SQLSTATEs of the catalog's functions (`migrations/sql`).
_UNBOUND, _REFUSED, _CREATED_AGAIN, FROZEN = "PGD01", "PGD02", "PGD04", "PGD06"
# What a statement meets at a table of another form: no table or schema, column, operator or conversion; a view; or a
# plan that was kept for the former table.
_ABOUT_TABLE = re.compile(r"42P01|3F000|42703|42883|42804|42846|42809|0A000|55000")

_CHECK_OPTIONS = "check the settings of `options` in the conninfo, in PGOPTIONS or in the service file"
_CHECK_OPTION = "correct this option in the conninfo, in its PG* variable or in the service file"
_CONNECTION_ADVICE = {
    "configuration parameter": _CHECK_OPTIONS,
    "value for parameter": _CHECK_OPTIONS,
    "requires a value": _CHECK_OPTIONS,
    "command-line argument": _CHECK_OPTIONS,
    'value: "': _CHECK_OPTION,
    "connection option": _CHECK_OPTION,
    "pg_hba.conf": "add a line for this role, database and address to pg_hba.conf",
    "password": "check the role and the password in the conninfo",
    "does not exist": "check the role and the database in the conninfo",
}
"""Words in libpq's message, and what to do. A refusal while connecting has no SQLSTATE in psycopg."""
# psycopg repeats the last failure, and then lists that of each host.
_ATTEMPTS = "Multiple connection attempts failed. All failures were:"
_ATTEMPT = re.compile(r"^- host: .*?, port: \S+, hostaddr: \S+: ", re.MULTILINE)
# A server that answers and is not what `target_session_attrs` asks for.
_WRONG_SERVER = re.compile(r"session is (not )?read-only|server is (not )?in hot standby mode")
_CHECK_ADDRESS = "check the conninfo, and that the server runs at this address"
_CHECK_SERVERS = "check the hosts and target_session_attrs in the conninfo, and whether a standby is to be promoted"


def connection_error(exc: psycopg.Error) -> PgdocError:
    """Return pgdoc's error for a failed connection; libpq's text names host, port and reason."""
    text = one_line(exc)
    for word, advice in _CONNECTION_ADVICE.items():
        if word in text:
            return DatabaseError(f"{text}: {advice}")
    advice = _CHECK_SERVERS if _WRONG_SERVER.search(text) else _CHECK_ADDRESS
    return ServerUnreachable(f"no connection to the server: {text}; {advice}")


def map_error(exc: psycopg.Error, subject: str, *, in_transaction: bool = False, rights: str = "") -> PgdocError:
    """Return pgdoc's error for an exception of a call on an open connection, or of the pool.

    The caller keeps the cause: `raise map_error(exc, ...) from exc`. `subject` is what the call was about, such as
    `collection "docs.orders"`. `in_transaction` is for a call in a transaction that lives as long as the connection.
    `rights` says what to do if the role lacks a right on the subject, see `pgdoc.database.rights`.
    """
    if isinstance(exc, psycopg_pool.PoolClosed):
        return StoreClosed("the store is closed: open a new one")
    if is_connection_loss(exc):
        found = f"{subject}: the connection was lost: {one_line(exc)}"
        if in_transaction:
            return TransactionLost(
                f"{found}. Nothing of the transaction is stored: leave its block, and run it again (store.run does)"
            )
        return ServerUnreachable(f"{found}. The next call makes a new one")
    known = _registry_error(exc, subject) or size_error(exc, subject) or schema_error(exc, subject)
    if known is not None:
        return known
    if is_conflict(exc):
        return _duplicate(exc, subject)
    kind = SerializationFailure if is_serialization_failure(exc) else DatabaseError
    return kind(f"{subject}: {_server_text(exc)}{_advice(exc, rights)}", sqlstate=exc.sqlstate)


def commit_error(exc: psycopg.Error) -> PgdocError:
    """Return pgdoc's error for an exception of COMMIT."""
    if is_connection_loss(exc):
        return CommitUnknown(
            f"the connection was lost during the commit: {one_line(exc)}. The transaction may or may not be stored: "
            "read what it wrote before you repeat it"
        )
    return map_error(exc, "the commit of the transaction")


def is_conflict(exc: psycopg.Error) -> bool:
    """Whether another document, with the same id or with values that a constraint forbids, refuses this one.

    The context is that of a COPY, one line, or none; it is longer where a trigger has written to another table.
    """
    is_violation = isinstance(exc, psycopg.errors.UniqueViolation | psycopg.errors.ExclusionViolation)
    return is_violation and "\n" not in (exc.diag.context or "")


def is_retryable(exc: Exception) -> bool:
    """Whether running the transaction of this error again can succeed; the user's own SQL raises psycopg's errors."""
    if isinstance(exc, PgdocError):
        return exc.retryable
    return isinstance(exc, psycopg.Error) and is_serialization_failure(exc)


def is_serialization_failure(exc: psycopg.Error) -> bool:
    """Whether another transaction came in between, so that running this one again can succeed."""
    conflict = isinstance(exc, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected)
    return conflict or exc.sqlstate == _CREATED_AGAIN


def is_about_table(exc: psycopg.Error) -> bool:
    """Whether the error of a statement may be due to another table that has the collection's name now."""
    if exc.sqlstate in {_REFUSED, _CREATED_AGAIN}:
        return True
    return exc.diag.context is None and _ABOUT_TABLE.fullmatch(exc.sqlstate or "") is not None


def is_connection_loss(exc: psycopg.Error) -> bool:
    """Return whether the connection was lost or refused, so that a new one can succeed with nothing changed."""
    if exc.sqlstate is None:
        return isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)
    return _UNREACHABLE.fullmatch(exc.sqlstate) is not None


def _registry_error(exc: psycopg.Error, subject: str) -> PgdocError | None:
    if exc.sqlstate == _UNBOUND:
        return RegistryUnbound(f"{subject}: {_server_text(exc)}")
    if exc.sqlstate == FROZEN:
        return UpgradePrepared(f"{subject}: {_server_text(exc)}")
    if exc.sqlstate == _REFUSED:
        return CollectionNotFound(
            f"{subject} was dropped, and the table that has its name now is another one: use another name, or run the "
            "call again if it is a collection"
        )
    return _collection_not_found(exc, subject)


def _collection_not_found(exc: psycopg.Error, subject: str) -> CollectionNotFound | None:
    if isinstance(exc, psycopg.errors.WrongObjectType):
        names_table = "pgdoc.find_collection" in (exc.diag.context or "")
        return CollectionNotFound(_server_text(exc) if names_table else f"{subject}: {_server_text(exc)}")
    if exc.diag.context is not None:  # raised in a trigger or function of the user, about another table
        return None
    if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return CollectionNotFound(f"{subject} does not exist: create it with store.create_collection()")
    if isinstance(exc, psycopg.errors.UndefinedColumn):
        return CollectionNotFound(
            f"{subject}: the table of this name is not a collection ({exc.diag.message_primary}): use another name"
        )
    return None


def _duplicate(exc: psycopg.Error, subject: str) -> DuplicateDocument:
    found = read_violation(exc)
    if found.document_id is not None:
        # A COPY also fails at an id that its own rows have twice, and the server does not say which of the two it is.
        return DuplicateDocument(
            f"{subject} already has a document {found.document_id!r}, or this call inserts it twice: use each id once, "
            "or replace or update the document",
            document_id=found.document_id,
        )
    if not found.is_ours:
        return DuplicateDocument(f"{subject}: {_server_text(exc)}: change one of the documents", index=found.index)
    return DuplicateDocument(
        f"{subject}: the unique index {found.index!r} allows no two documents with the same values"
        f"{_values_at(found.paths, found.values)}: change one of them",
        index=found.index,
        paths=found.paths,
        values=found.values,
    )


def _values_at(paths: tuple[str, ...], values: tuple[Any, ...] | None) -> str:
    """Write the paths of an index with the values there, as far as they are known, for a message."""
    if not paths:
        return ""
    if values is None:
        return f" at {', '.join(map(short_repr, paths))}"
    return f" ({', '.join(f'{path} = {short_repr(value)}' for path, value in zip(paths, values, strict=True))})"


def _advice(exc: psycopg.Error, rights: str) -> str:
    if isinstance(exc, psycopg.errors.InsufficientPrivilege) and not exc.diag.message_hint:
        return f". {_advice_on_rights(exc, rights)}"
    if isinstance(exc, psycopg.errors.UniqueViolation | psycopg.errors.ExclusionViolation):
        return (
            f". A trigger wrote this to the table {exc.diag.schema_name}.{exc.diag.table_name}: look at its rows there"
        )
    if is_serialization_failure(exc):
        return ". Run the call, or the whole transaction, again (store.run does)"
    if isinstance(exc, psycopg.errors.DuplicatePreparedStatement | psycopg.errors.InvalidSqlStatementName):
        return ". A pooler runs the statements of one program in sessions of others: don't run PREPARE there"
    return ""


def _advice_on_rights(exc: psycopg.Error, rights: str) -> str:
    """Tell what refused the role: privileges, a row policy, or code of the table; the text can be in any language."""
    if exc.diag.source_function == "ExecWithCheckOptions":
        return "A row policy of the table forbids the role to write this row: write another one, or as another role"
    if rights and (exc.diag.source_function or "").startswith("aclcheck_error") and not _is_in_foreign_code(exc):
        return rights
    return "Grant the privilege to the role, or use a role that has it"


def _is_in_foreign_code(exc: psycopg.Error) -> bool:
    """Whether a function or trigger that does not belong to pgdoc met the error."""
    return exc.diag.context is not None and "pgdoc." not in exc.diag.context


def _server_text(exc: psycopg.Error) -> str:
    parts = (exc.diag.message_primary or str(exc), exc.diag.message_detail, exc.diag.message_hint)
    return ". ".join(part.rstrip(".") for part in parts if part)


def one_line(exc: psycopg.Error | PgdocError) -> str:
    """Return the text of pgdoc, the server or libpq in one line, without libpq's questions, which start with a tab."""
    if isinstance(exc, PgdocError):
        return " ".join(str(exc).split())
    text = exc.diag.message_primary or "\n".join(line for line in str(exc).splitlines() if not line.startswith("\t"))
    _, found, attempts = text.partition(_ATTEMPTS)
    if found:
        text = "; ".join(dict.fromkeys(_joined(attempt) for attempt in _ATTEMPT.split(attempts) if attempt.strip()))
    return _joined(text)


def _joined(text: str) -> str:
    text = text.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    lines = dict.fromkeys(text.splitlines())  # libpq tries again without application_name, and fails alike
    return " ".join(" ".join(lines).split()).rstrip(".")
