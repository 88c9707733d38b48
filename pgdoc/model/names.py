"""The names of collections and schemas, and the table behind one."""

from __future__ import annotations

import re
from typing import Any

from pgdoc.errors import InvalidName
from pgdoc.model.short_repr import short_repr

__all__ = ["check_consumer", "check_name", "quoted"]

_NAME = re.compile(r"[^\W\d][\w-]*")
_CONSUMER = re.compile(r"[a-z0-9_]{1,40}")
_LONGEST_BYTES = 63  # PostgreSQL cuts longer identifiers without a word (NAMEDATALEN)


def check_name(name: Any, kind: str) -> str:
    """Return the name as it is, or refuse it.

    Args:
        name: what the user gave.
        kind: what it names, for the message: `collection`, `schema`.

    Raises:
        InvalidName: not a letter or `_`, then letters, digits, `_`, `-`; or over 63 bytes.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidName(
            f"{short_repr(name)} is not a valid {kind} name: use a letter or _ followed by letters, digits, _ or -"
        )
    if len(name.encode()) > _LONGEST_BYTES:
        raise InvalidName(
            f"the {kind} name {short_repr(name)} is {len(name.encode())} bytes long: {_LONGEST_BYTES} at most"
        )
    return name


def check_consumer(name: Any) -> str:
    """Return the name of a consumer as it is, or refuse it: it becomes part of a slot's name.

    Raises:
        InvalidName: not 1 to 40 of `a-z`, `0-9` and `_`.
    """
    if not isinstance(name, str) or _CONSUMER.fullmatch(name) is None:
        raise InvalidName(f"{short_repr(name)} is no name for a consumer: 1 to 40 of a-z, 0-9 and _ make one")
    return name


def quoted(schema: str, name: str) -> str:
    """Write the table of a collection as SQL; the names were checked, so that they hold neither quotes nor `%`."""
    return f'"{schema}"."{name}"'
