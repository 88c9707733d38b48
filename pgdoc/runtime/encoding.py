"""The encoding of every connection that pgdoc opens."""

from __future__ import annotations

from psycopg.conninfo import make_conninfo

__all__ = ["in_utf8"]


def in_utf8(conninfo: str) -> str:
    """Return a conninfo whose session is in UTF-8, whatever the user, PGCLIENTENCODING, the role or the database set.

    The encoding is part of the startup packet, so a pooler passes it on.
    """
    return make_conninfo(conninfo, client_encoding="UTF8")
