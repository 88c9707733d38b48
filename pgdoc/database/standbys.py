"""Connections that lead to a standby, which can't write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

__all__ = ["FIND_PRIMARY", "OnStandby", "is_standby"]

FIND_PRIMARY = (
    "name all servers in the conninfo, as in host=a,b target_session_attrs=read-write, so that pgdoc finds the primary"
)


class OnStandby(psycopg.OperationalError):
    """A statement that writes reached a standby. Without an SQLSTATE, it counts as a lost connection."""

    def __init__(self, refusal: str) -> None:
        super().__init__(f"{' '.join(refusal.split())}: the server is a standby; {FIND_PRIMARY}")


def is_standby(connection: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether the server is in recovery, as it last reported by itself."""
    return connection.pgconn.parameter_status(b"in_hot_standby") == b"on"
