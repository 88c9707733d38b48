"""The options of a relay, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pgdoc.changes.event_filter import parse_where
from pgdoc.errors import InvalidInput
from pgdoc.model.names import check_consumer
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.config import selection_digest
from pgdoc.relay.formats import format_named
from pgdoc.relay.partitions import MOST_PARTITIONS
from pgdoc.streams.options import make_selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pgdoc.model.values import Encoder

__all__ = ["RelayOptions"]

_ON_LOST = ("raise", "continue")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """What a relay sends.

    Attributes:
        consumer: the name of the durable consumer that it reads.
        names: of collections and tables; empty for all collections.
        topics: what selects events of the application's own; `None` for none of them.
        selection: a digest of the names, the topics and the filter.
        on_lost: `raise` or `continue`, when the log lacks events that PostgreSQL no longer keeps.
    """

    consumer: str
    names: tuple[str, ...]
    where: Mapping[str, Any] | None
    tables: bool
    topics: tuple[str, ...] | None
    snapshot: bool
    format: str
    partitions: int
    on_lost: str
    selection: str

    @classmethod
    def checked(  # noqa: PLR0913 (the options of a relay)
        cls,
        consumer: str,
        names: tuple[str, ...],
        *,
        encoder: Encoder | None,
        where: Mapping[str, Any] | None,
        tables: bool,
        topics: Iterable[str] | None,
        snapshot: bool,
        format: str,  # noqa: A002 (the name in the contract)
        partitions: int,
        on_lost: str,
    ) -> Self:
        """Check what the user gave.

        Raises:
            InvalidInput: an option is not valid.
        """
        condition = None if where is None else parse_where(where, encoder)
        chosen = make_selection(names, condition, tables=tables, topics=topics)
        format_named(format)
        if on_lost not in _ON_LOST:
            raise InvalidInput(f"on_lost must be {' or '.join(map(repr, _ON_LOST))}, got {short_repr(on_lost)}")
        is_number = isinstance(partitions, int) and not isinstance(partitions, bool)
        if not is_number or not 1 <= partitions <= MOST_PARTITIONS:
            raise InvalidInput(f"partitions must be from 1 to {MOST_PARTITIONS:,}, got {short_repr(partitions)}")
        text = None if condition is None else condition.text.decode(errors="surrogatepass")
        return cls(
            consumer=check_consumer(consumer),
            names=names,
            where=where,
            tables=tables,
            topics=None if topics is None else tuple(topics),
            snapshot=snapshot,
            format=format,
            partitions=partitions,
            on_lost=on_lost,
            selection=selection_digest(
                names=None if chosen.collections is None else sorted(chosen.collections),
                tables=tables,
                topics=sorted(chosen.topics),
                where=text,
            ),
        )

    def to_watch(self) -> dict[str, Any]:
        """Return what `watch` takes besides the names."""
        return {"where": self.where, "tables": self.tables, "topics": self.topics}
