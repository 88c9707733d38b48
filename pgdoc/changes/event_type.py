"""`EventType`: what an event reports."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["EventType"]


class EventType(StrEnum):
    """What an event reports. Each member is also a `str`."""

    INSERT = "insert"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    TRUNCATE = "truncate"
    CREATE = "create"
    RENAME = "rename"
    DROP = "drop"
    SCHEMA = "schema"
    INVALIDATE = "invalidate"
    SNAPSHOT = "snapshot"
    MESSAGE = "message"
