"""Why no connection was made: the one place that reads libpq's own text, for documents and for streams.

The server's word comes inside that text, without SQLSTATE and in the server's language; the names of files and settings
are the same in all of them. What is not recognized is still told, as the server said it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from pgdoc.errors import DatabaseError, ServerUnreachable

if TYPE_CHECKING:
    from pgdoc.errors import PgdocError

__all__ = ["one_line", "refusal"]

_ADVICE = {
    "pg_hba.conf": "add a line for this role, database and address to pg_hba.conf",
    "password": "check the role and the password of the conninfo",
    "does not exist": "check the role and the database of the conninfo",
}


def refusal(exc: psycopg.Error) -> PgdocError:
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
