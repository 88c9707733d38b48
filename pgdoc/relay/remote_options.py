"""The options of a `RemoteStream`, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from pgdoc.changes.event_filter import parse_where
from pgdoc.errors import InvalidInput
from pgdoc.model import json_codec
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.groups.lease import LONGEST_LEASE_S
from pgdoc.streams.options import check_buffer, make_selection, read_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pgdoc.changes.router import Condition
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken

__all__ = ["LEASE_S", "RemoteOptions", "check_group"]

LEASE_S: Final = 10.0
_LEAST_LEASE_S: Final = 0.5
_LONGEST_GROUP: Final = 100
_STARTS = ("now", "beginning")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """What a stream of a log reads.

    Attributes:
        names: of collections, tables and topics, as events have them; empty for all that the log has.
        covers: which of these names it is on, if `names` can't say that: for topics such as `order.*`.
        start: `now`, `beginning`, or what to resume after.
        decode: decodes the data of events; `None` for the usual function.
    """

    names: frozenset[str]
    covers: Callable[[str], bool] | None
    where: Condition | None
    start: ResumeToken | Lsn | str
    buffer_size: int
    buffer_bytes: int
    decode: JsonDecoder | None

    @classmethod
    def checked(  # noqa: PLR0913 (the options of a stream)
        cls,
        names: tuple[str, ...],
        *,
        topics: Iterable[str] | None = None,
        where: Mapping[str, Any] | None,
        resume_after: ResumeToken | Lsn | str | None,
        start: str,
        buffer_size: int,
        buffer_bytes: int,
        decimals: bool,
    ) -> Self:
        """Check what the user gave.

        Raises:
            InvalidInput: an option is not valid.
            InvalidFilter: `where` is not a filter.
            InvalidResumeToken: `resume_after` is not a token or an LSN.
        """
        check_start(start)
        if resume_after is not None and start != "now":
            raise InvalidInput("resume_after says where to begin: leave out start")
        check_buffer(buffer_size, buffer_bytes)
        selection = make_selection(names, None, tables=False, topics=topics) if names or topics is not None else None
        wanted = frozenset() if selection is None else (selection.collections or frozenset()) | selection.topics
        is_exact = selection is None or not (selection.collections is None or any("*" in each for each in wanted))
        return cls(
            names=wanted if is_exact else frozenset(),
            covers=None if is_exact or selection is None else selection.covers,
            where=None if where is None else parse_where(where),
            start=start if resume_after is None else read_token(resume_after),
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            decode=json_codec.decode_decimals if decimals else None,
        )


def check_start(start: str) -> str:
    """Return where to begin, if it is valid.

    Raises:
        InvalidInput: it is not.
    """
    if start not in _STARTS:
        raise InvalidInput(f"start must be {' or '.join(map(repr, _STARTS))}, got {short_repr(start)}")
    return start


def check_group(group: str | None, lease_s: float) -> None:
    """Check what a stream of a group is given.

    Raises:
        InvalidInput: it is not valid.
    """
    is_name = isinstance(group, str) and 0 < len(group) <= _LONGEST_GROUP and group.isprintable()
    if group is not None and not is_name:
        raise InvalidInput(
            f"group must be a text of 1 to {_LONGEST_GROUP} printable characters, got {short_repr(group)}"
        )
    is_number = isinstance(lease_s, int | float) and not isinstance(lease_s, bool)
    if not is_number or not _LEAST_LEASE_S <= lease_s <= LONGEST_LEASE_S:
        raise InvalidInput(
            f"lease must be from {_LEAST_LEASE_S:g} to {LONGEST_LEASE_S:,.0f} s, got {short_repr(lease_s)}"
        )
