"""What pgdoc adds to the conninfo of a user."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["with_timeout"]

_CONNECT_TIMEOUT_S = 10


def with_timeout(conninfo: str) -> str:
    """Bound the time to connect where the user did not: without a bound it takes minutes to see that nobody answers."""
    if "connect_timeout" in conninfo_to_dict(conninfo) or "PGCONNECT_TIMEOUT" in os.environ:
        return conninfo
    return make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT_S)
