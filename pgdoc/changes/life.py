"""The life of collections: what messages say of it, and when a stream has none of its collections left.

A stream whose collections are all gone, dropped or renamed away, gets `invalidate` and ends. That event stands just
behind the one that took the last collection, at a place which nothing else has, for each message has an LSN of its own
(`pgdoc.changes.assemble`). So a stream that resumes after the drop gets the invalidate next, and one that resumes after
the invalidate goes on with what comes later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pgdoc.decoding.records import CollectionChange, Message

if TYPE_CHECKING:
    from pgdoc.changes.assemble import Change, Place
    from pgdoc.tokens import Position

_PREFIX = '{"collection":'
"""What the catalog's functions begin such a message with; a test for it is all that other messages cost."""

_KINDS = ("create", "rename", "drop")


def read_message(message: Message) -> tuple[str, CollectionChange] | None:
    """Give the schema, and what became of a collection of it; `None` where the message is of another form."""
    content = message.content
    if content is None or not content.startswith(_PREFIX):
        return None
    try:
        said = orjson.loads(content)["collection"]
        schema, kind, table = said["schema"], said["event"], said["name"]
        renamed_to, left = said.get("renamed_to"), said.get("left")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if kind not in _KINDS or not (_is_name(schema) and _is_name(table)) or _is_name(renamed_to) != (kind == "rename"):
        return None
    told = frozenset(left) if isinstance(left, list) and all(map(_is_name, left)) else None
    return schema, CollectionChange(
        message.lsn, kind, table, content.encode(), renamed_to=renamed_to if kind == "rename" else None, left=told
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def just_before(place: Place | Position) -> Place:
    """Give a place after which the change at `place` is the next one, if there is one."""
    commit_lsn, lsn, kind, ordinal = place
    return (commit_lsn, lsn, kind, ordinal - 1)


def just_behind(place: Place | Position) -> Place:
    """Give the place that the invalidate has where the message at `place` takes the last collection."""
    commit_lsn, lsn, kind, ordinal = place
    return (commit_lsn, lsn, kind, ordinal + 1)


def is_message(place: Place | Position) -> bool:
    """Tell whether a change at this place is one of a whole collection: the only ones that can take the last."""
    return bool(place[1]) and place[2] == 0


class Life:
    """Follows the collections of one stream.

    Args:
        names: the collections; `None` for all of the schema, of which there may always be more.
        resumed: whether the stream begins in the past, when some may have been gone already. Until something is seen
            of such a collection it counts as what the last drop or rename told of the schema.
    """

    def __init__(self, names: frozenset[str] | None, *, resumed: bool = False) -> None:
        self._names = names
        self._there = dict.fromkeys(names or (), None if resumed else True)

    def follow(self, change: Change) -> Change | None:
        """Take the next change that concerns the stream; give its invalidate where it has no collection left."""
        row = change.row
        if self._names is None or not isinstance(row, CollectionChange):
            return None
        self._note(row.table, there=row.kind == "create")
        if row.renamed_to is not None:
            self._note(row.renamed_to, there=True)
        if row.kind == "create" or any(self._is_there(name, row) for name in self._names):
            return None
        return change._replace(
            position=just_behind(change.position), row=row._replace(kind="invalidate", renamed_to=None)
        )

    def _note(self, name: str, *, there: bool) -> None:
        if name in self._there:
            self._there[name] = there

    def _is_there(self, name: str, last: CollectionChange) -> bool:
        known = self._there[name]
        return (last.left is None or name in last.left) if known is None else known
