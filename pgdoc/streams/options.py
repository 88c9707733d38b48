"""The options of `watch()`, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from pgdoc.changes.event_filter import parse_where
from pgdoc.changes.events import ChangeEvent
from pgdoc.changes.router import Selection
from pgdoc.errors import InvalidInput, InvalidResumeToken
from pgdoc.model.names import check_consumer, check_name
from pgdoc.model.positions import Lsn
from pgdoc.model.short_repr import short_repr
from pgdoc.model.table_names import check_table, is_table_name
from pgdoc.model.tokens import ResumeToken, SnapshotStage
from pgdoc.model.topics import check_topics
from pgdoc.model.value_codec import USUAL_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgdoc.changes.router import Condition
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.model.tokens import SnapshotState
    from pgdoc.model.value_codec import ValueCodec


EVERY_COLLECTION: Final = "*"
"""Among the names of a stream, what stands for all collections."""

BUFFER_SIZE = 10_000
BUFFER_BYTES = 64 << 20
_ON_LOST = ("raise", "recreate")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The options of `watch()`.

    Attributes:
        where: the filter; `None` for every event.
        snapshot: whether the existing documents come first.
        resume_after: `None` begins now.
        consumer: the name of a durable consumer, if any.
        auto_ack: whether asking for the next event acknowledges the one before.
        wait: whether to stand by while another process has the consumer open.
        on_lost: `raise` or `recreate`, when the consumer's position is no longer kept.
        buffer_size: the limit of the buffer, in events.
        decode: decodes the data of events; `None` for the usual function.
    """

    where: Condition | None
    snapshot: bool
    resume_after: ResumeToken | Lsn | None
    consumer: str | None
    auto_ack: bool
    wait: bool
    on_lost: str
    buffer_size: int
    buffer_bytes: int
    decode: JsonDecoder | None

    @classmethod
    def checked(
        cls,
        *,
        codec: ValueCodec = USUAL_VALUES,
        where: Mapping[str, Any] | None,
        resume_after: ResumeToken | Lsn | str | None,
        consumer: str | None,
        **others: Any,
    ) -> Self:
        """Check the arguments that the user gave."""
        options = cls(
            where=None if where is None else parse_where(where, codec.encoder),
            decode=codec.decode,
            resume_after=None if resume_after is None else read_token(resume_after),
            consumer=None if consumer is None else check_consumer(consumer),
            **others,
        )
        if options.on_lost not in _ON_LOST:
            raise ValueError(f"on_lost must be {' or '.join(map(repr, _ON_LOST))}, got {options.on_lost!r}")
        options.check_snapshot()
        check_buffer(options.buffer_size, options.buffer_bytes)
        return options

    @classmethod
    def of_consumer(cls, consumer: str, *, where: Mapping[str, Any] | None, snapshot: bool, codec: ValueCodec) -> Self:
        """Check the arguments for a consumer that is not opened."""
        return cls.checked(
            codec=codec,
            where=where,
            snapshot=snapshot,
            resume_after=None,
            consumer=consumer,
            auto_ack=True,
            wait=False,
            on_lost="raise",
            buffer_size=BUFFER_SIZE,
            buffer_bytes=BUFFER_BYTES,
        )

    @property
    def first_snapshot(self) -> SnapshotState:
        """How far a new consumer's snapshot has come."""
        if not self.snapshot:
            return SnapshotStage.NONE
        if not isinstance(self.resume_after, ResumeToken):
            return SnapshotStage.START
        progress = self.resume_after.progress
        return progress if progress is not None and progress.remaining else SnapshotStage.NONE

    def check_snapshot(self) -> None:
        """Refuse a position that does not go with the `snapshot` option."""
        if self.snapshot and isinstance(self.resume_after, Lsn):
            raise ValueError(
                "snapshot=True can't resume after an LSN, which does not record the progress of a snapshot: "
                "pass a resume token, or leave out resume_after or snapshot"
            )
        if not self.snapshot and isinstance(self.resume_after, ResumeToken) and self.resume_after.is_inside:
            raise InvalidResumeToken("the token is from inside a snapshot: pass snapshot=True to continue it")


def make_selection(
    names: Iterable[str], where: Condition | None, *, tables: bool, topics: Iterable[str] | None = None
) -> Selection:
    """Return what a stream is on.

    Collections and tables by their names; `*` among them stands for all collections, as no names do where there are no
    topics. With `tables`, also all watched tables.
    """
    names, selected = tuple(names), check_topics(topics)
    has_all = EVERY_COLLECTION in names or tables or not (names or selected)
    checked = frozenset(check_watchable(name) for name in names if name != EVERY_COLLECTION)
    if checked and tables:
        raise ValueError("tables=True stands for all collections and watched tables: leave out the names, or tables")
    if checked and has_all:
        raise ValueError("'*' stands for all collections: leave out the other names, or '*'")
    return Selection(None if has_all else checked, where, with_tables=tables, topics=selected)


def check_watchable(name: Any) -> str:
    """Return the name of one collection or table as streams know it, if it is valid."""
    if isinstance(name, str) and is_table_name(name):
        return check_table(name)
    return check_name(name, "collection")


def read_token(resume_after: ResumeToken | Lsn | str) -> ResumeToken | Lsn:
    """Parse what a user gave to resume after: a token, its text, or a bare LSN."""
    if isinstance(resume_after, ResumeToken | Lsn):
        return resume_after
    if isinstance(resume_after, str) and "/" in resume_after and "." not in resume_after:
        return Lsn.parse(resume_after)
    return ResumeToken.parse(resume_after)


def check_buffer(buffer_size: int, buffer_bytes: int) -> None:
    """Refuse a buffer that could hold nothing."""
    for name, value in (("buffer_size", buffer_size), ("buffer_bytes", buffer_bytes)):
        check_at_least(1, name, value)


def check_at_least(least: int, name: str, value: Any) -> None:
    """Check an argument that counts something."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {short_repr(value)}")


def check_event(event: ChangeEvent | None) -> None:
    """Check what a call takes for an event; a batch is a likely mistake."""
    if event is not None and not isinstance(event, ChangeEvent):
        raise InvalidInput(
            f"{short_repr(event)} is not an event: pass one of this stream, such as the last one of a batch"
        )


def check_timeout(timeout_s: float | None) -> None:
    """Check how long a call shall wait."""
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if timeout_s is not None and (not is_number or timeout_s != timeout_s):  # noqa: PLR0124 (NaN)
        raise InvalidInput(f"timeout must be a number of seconds, or None; got {short_repr(timeout_s)}")


def check_most(most: int) -> None:
    """Check how many events a batch may have."""
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InvalidInput(f"max must be a positive integer, the most events in a batch; got {short_repr(most)}")
