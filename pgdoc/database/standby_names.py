"""Reads the server's setting `synchronous_standby_names`."""

from __future__ import annotations

import re

__all__ = ["lists_standby", "parse_standby_names"]

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|([^\s,()"]+)')


def parse_standby_names(names: str) -> set[str]:
    """Return the names in the setting, in lower case, as PostgreSQL ignores the case.

    The words of its grammar count as names, too: a walsender that is named `any` is quiet without need.
    """
    return {quoted.replace('""', '"') + bare for quoted, bare in _TOKEN.findall(names.lower())}


def lists_standby(names: str, application_name: str) -> bool:
    """Return whether the setting could match an application name."""
    listed = parse_standby_names(names)
    return "*" in listed or application_name.lower() in listed
