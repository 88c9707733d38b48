"""The options of a relay, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pgdoc.changes.event_filter import parse_where
from pgdoc.errors import InvalidInput
from pgdoc.model.names import check_consumer
from pgdoc.model.short_repr import short_repr
from pgdoc.relay.config import selection_digest
from pgdoc.relay.partitions import MOST_PARTITIONS
from pgdoc.streams.options import check_selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgdoc.model.values import Encoder

__all__ = ["RelayOptions"]

_FORMATS = ("pgdoc",)
_ON_LOST = ("raise", "continue")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """What a relay sends.

    Attributes:
        consumer: the name of the durable consumer that it reads.
        names: of collections and tables; empty for all collections.
        selection: a digest of the names and the filter.
        on_lost: `raise` or `continue`, when the log lacks events that PostgreSQL no longer keeps.
    """

    consumer: str
    names: tuple[str, ...]
    where: Mapping[str, Any] | None
    tables: bool
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
        snapshot: bool,
        format: str,  # noqa: A002 (the name in the contract)
        partitions: int,
        on_lost: str,
    ) -> Self:
        """Check what the user gave.

        Raises:
            InvalidInput: an option is not valid.
        """
        check_selection(names, tables=tables)
        condition = None if where is None else parse_where(where, encoder)
        if format not in _FORMATS:
            raise InvalidInput(f"format must be one of {', '.join(_FORMATS)}, got {short_repr(format)}")
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
            snapshot=snapshot,
            format=format,
            partitions=partitions,
            on_lost=on_lost,
            selection=selection_digest(names=sorted(names), tables=tables, where=text),
        )

    def to_watch(self) -> dict[str, Any]:
        """Return what `watch` takes besides the names."""
        return {"where": self.where, "tables": self.tables}
