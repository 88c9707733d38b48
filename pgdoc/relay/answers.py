"""What an answer to a webhook means."""

from __future__ import annotations

import contextlib
import re
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from pgdoc.model.short_repr import short_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "Meaning", "Unanswered", "meaning_of", "retry_after_s"]

_LEAST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 3600.0
"""Longer waits are cut: the receiver is asked again after this time."""
_SHOWN: Final = 200
_GONE: Final = 410
_BUSY: Final = (429, 503)


class Unanswered(Exception):  # noqa: N818 (it says what happened)
    """No answer came: the network failed, or the time was up."""


class Answer(NamedTuple):
    """An answer of a receiver.

    Attributes:
        headers: by their names in lower case.
        body: the beginning of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The answer for a message: what the receiver wrote can forge no line of a log."""
        said = self.body.decode(errors="replace").strip()
        return f"it answered {self.status}" + (f": {short_repr(said[:_SHOWN])}" if said else "")


class Meaning(Enum):
    """What becomes of the event, and of the others."""

    DELIVERED = "delivered"
    FAILED = "failed"
    LATER = "later"
    """The receiver has named a time before which it wants nothing more; that is no failure of the event."""
    GONE = "gone"
    """The receiver wants nothing more at all."""


def meaning_of(answer: Answer) -> Meaning:
    """Return what an answer means. A redirect is a failure: it is not followed."""
    if 200 <= answer.status < 300:
        return Meaning.DELIVERED
    if answer.status == _GONE:
        return Meaning.GONE
    if answer.status in _BUSY and "retry-after" in answer.headers:
        return Meaning.LATER
    return Meaning.FAILED


def retry_after_s(answer: Answer, now: float) -> float:
    """Return how many seconds to wait, by the header `Retry-After`: seconds, or a date. `now` is in seconds since 1970.

    It is at least a second, so that a receiver that says 0 is not asked without end, and at most an hour.
    """
    text = answer.headers.get("retry-after", "").strip()
    wait_s = _LEAST_WAIT_S
    if re.fullmatch(r"[0-9]{1,12}", text):
        wait_s = float(text)
    else:
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # neither: as if it said a second
            wait_s = parsedate_to_datetime(text).timestamp() - now
    return min(max(wait_s, _LEAST_WAIT_S), _LONGEST_WAIT_S)
