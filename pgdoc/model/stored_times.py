"""Times as the server stores them: its text, or microseconds since its epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from pgdoc.errors import UnreadableDocument

__all__ = ["EPOCH", "moment_of", "read_time"]

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""What PostgreSQL's binary times count microseconds from."""


@lru_cache(maxsize=256)
def moment_of(text: str) -> datetime:
    """Parse PostgreSQL's text of a time, once for all rows of a transaction."""
    return datetime.fromisoformat(text).astimezone(UTC)


def read_time(moment: datetime | str | int | None, _state: dict[str, Any]) -> datetime:
    """Read a time, which is `None` if the server can't return it.

    Raises:
        UnreadableDocument: it is out of Python's range.
    """
    if moment is None:
        raise UnreadableDocument("a stored time is out of Python's range: change it with SQL")
    try:
        if isinstance(moment, int):
            return EPOCH + timedelta(microseconds=moment)
        return moment_of(moment) if isinstance(moment, str) else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise UnreadableDocument(
            f"the stored time {str(moment)!r} is out of Python's range: change it with SQL"
        ) from exc
