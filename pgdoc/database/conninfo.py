"""The settings that pgdoc adds to the user's conninfo."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["with_timeout"]

_CONNECT_TIMEOUT_S = 10


def with_timeout(conninfo: str) -> str:
    """Add a `connect_timeout` unless the user set one: without it, a dead address takes minutes to fail."""
    if "connect_timeout" in conninfo_to_dict(conninfo) or "PGCONNECT_TIMEOUT" in os.environ:
        return conninfo
    return make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT_S)
