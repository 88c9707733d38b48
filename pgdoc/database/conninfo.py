"""The settings that pgdoc adds to the user's conninfo."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["with_application_name", "with_timeout"]

_CONNECT_TIMEOUT_S = 10
_NAME_BYTES = 63  # PostgreSQL cuts off longer names, and logs a notice


def with_timeout(conninfo: str) -> str:
    """Add a `connect_timeout` unless the user set one: without it, a dead address takes minutes to fail."""
    if "connect_timeout" in conninfo_to_dict(conninfo) or "PGCONNECT_TIMEOUT" in os.environ:
        return conninfo
    return make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT_S)


def with_application_name(conninfo: str, purpose: str = "") -> str:
    """Name a connection after what it serves, for `pg_stat_activity` and `pg_stat_replication`.

    The name is `pgdoc <purpose>`. If the user set an `application_name` in the conninfo or in PGAPPNAME, that comes
    first: `<user's name>: pgdoc <purpose>`. A name of over 63 bytes loses its end, and bytes that are not UTF-8 are
    dropped. Only libpq reads service files: a name that one of them sets stays as it is. `purpose` is empty for a
    short-lived connection.
    """
    settings = conninfo_to_dict(conninfo)
    own = settings.get("application_name")
    uses_service = "service" in settings or "PGSERVICE" in os.environ
    given = own or os.environ.get("PGAPPNAME") or settings.get("fallback_application_name")
    name = f"pgdoc {purpose}".rstrip()
    name = f"{given}: {name}" if given else name
    name = name.encode(errors="ignore")[:_NAME_BYTES].decode(errors="ignore")
    if uses_service and not own:
        return make_conninfo(conninfo, fallback_application_name=name)
    return make_conninfo(conninfo, application_name=name)
