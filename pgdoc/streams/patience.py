"""How long a call waits for a consumer or a stream, and how often it looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import InvalidInput, InvalidResumeToken
from pgdoc.model.positions import Lsn
from pgdoc.model.short_repr import short_repr
from pgdoc.runtime.retry import growing_pause_s
from pgdoc.streams.options import check_timeout

if TYPE_CHECKING:
    from pgdoc.streams.delivery import Delivery

__all__ = ["TIMEOUT_S", "Patience", "check_lsn", "check_wal_has", "has_processed"]

TIMEOUT_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 0.05
_FIRST_CALL_PAUSE_S: Final = 0.25
_LONGEST_CALL_PAUSE_S: Final = 2.0


class Patience:
    """The time that one call has; `None` waits as long as it takes.

    Attributes:
        timeout_s: the limit.
    """

    def __init__(self, timeout_s: float | None) -> None:
        check_timeout(timeout_s)
        self.timeout_s = timeout_s
        self._began = time.monotonic()
        self._next_call, self._call_pause_s = self._began, _FIRST_CALL_PAUSE_S

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.timeout_s is not None and self._waited_s >= self.timeout_s

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look."""
        pause_s = growing_pause_s(self._waited_s, _LONGEST_PAUSE_S)
        return pause_s if self.timeout_s is None else max(0.0, min(pause_s, self.timeout_s - self._waited_s))

    @property
    def _waited_s(self) -> float:
        return time.monotonic() - self._began

    def may_call(self) -> bool:
        """Return whether to call the owner of the consumer now: at once, and then less and less often.

        It may not have been open, or may have ended meanwhile.
        """
        now = time.monotonic()
        if now < self._next_call:
            return False
        self._next_call = now + self._call_pause_s
        self._call_pause_s = min(2 * self._call_pause_s, _LONGEST_CALL_PAUSE_S)
        return True


def check_lsn(name: str, value: Any) -> Lsn:
    """Return an LSN that a user gave, also as text.

    Raises:
        InvalidInput: it is none.
    """
    if isinstance(value, Lsn):
        return value
    try:
        return Lsn.parse(value if isinstance(value, str) else "")
    except InvalidResumeToken as exc:
        raise InvalidInput(
            f"{name} must be an LSN, as text such as '16/B374D848' or as Lsn, got {short_repr(value)}"
        ) from exc


def check_wal_has(lsn: Lsn, wal_end: int) -> None:
    """Refuse to wait for an LSN beyond the end of the server's WAL.

    Raises:
        InvalidResumeToken: it is.
    """
    if lsn > wal_end:
        raise InvalidResumeToken(
            f"LSN {lsn} lies beyond the end of this server's WAL, {Lsn(wal_end)}: another server issued it, or a "
            "failover or a crash took back what was written there; write again, and wait for that"
        )


def has_processed(delivery: Delivery, lsn: int) -> bool:
    """Return whether the reader of a stream has come back after every event of transactions that commit before `lsn`.

    Any thread may ask.
    """
    feed = delivery.feed
    if feed is None or not delivery.has_only_changes:
        return False
    live = feed.live_position  # read first: what is put later lies beyond it
    # A mailbox has passed nothing while it has a batch, and it has one until the reader asks for what comes after it.
    return max(delivery.processed, delivery.mailbox.reached(live), feed.begun_at) >= (lsn,)
