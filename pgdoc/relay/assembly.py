"""Puts the parts of large events together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.errors import LogRefused

if TYPE_CHECKING:
    from pgdoc.relay.log import LogEntry

__all__ = ["Assembly", "InsideEvent"]


class InsideEvent(Exception):  # noqa: N818 (not an error: the reader begins earlier)
    """Reading began inside an event.

    Attributes:
        token: of the event.
    """

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token


class Assembly:
    """Makes whole events of entries that come in the order of the log.

    Args:
        log: for messages.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self._parts: list[LogEntry] = []
        self._is_first = True
        self._left_out: str | None = None

    @property
    def is_inside(self) -> bool:
        """Whether an event lacks parts that have not come yet."""
        return bool(self._parts)

    def leave_out(self, token: str) -> None:
        """Leave an event out whose first parts the log has forgotten."""
        self._left_out = token

    def add(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Return the whole events among the entries, and those that they complete.

        Raises:
            InsideEvent: the very first is not the beginning of an event.
            LogRefused: a part is missing.
        """
        if not self._parts and all(entry.part is None for entry in entries):
            self._is_first = self._is_first and not entries
            return entries
        whole = []
        for entry in entries:
            found = self._add(entry)
            self._is_first = False
            if found is not None:
                whole.append(found)
        return whole

    def _add(self, entry: LogEntry) -> LogEntry | None:
        parts, part = self._parts, entry.part
        if entry.token == self._left_out:
            return None
        if part is not None and not parts and part.number > 1 and self._is_first:
            raise InsideEvent(entry.token)
        if part is None or part.number == 1:
            # A relay that goes on with another print of an event begins it again: the parts before are void.
            parts.clear()
        if part is None:
            return entry
        is_next = part.number == len(parts) + 1 <= part.total
        if parts and is_next:
            first = parts[0]
            is_next = entry.token == first.token and first.part is not None and part.total == first.part.total
        if not is_next:
            raise LogRefused(
                f"{self._log} has a large event whose parts are not complete, at sequence {entry.sequence:,}: it is "
                "damaged; begin after it",
                reason="foreign",
            )
        if part.number < part.total:
            parts.append(entry)
            return None
        self._parts = []
        return entry._replace(body=b"".join([*(each.body for each in parts), entry.body]), part=None)
