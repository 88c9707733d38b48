"""The output plugins that pgdoc can read, in order of preference."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from pgdoc.decoding import pgoutput, wal2json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.decoding.records import Begin, Record


class Decoder(Protocol):
    """Decodes frames to records, which do not depend on how the frames are grouped into calls."""

    @property
    def begun(self) -> Begin | None:
        """The transaction that has begun without a change so far, so that `decode` has not returned its Begin yet."""

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Return the records of the frames, in order.

        Raises:
            ProtocolError: a message is not one of the plugin's.
        """


class Plugin(NamedTuple):
    """An output plugin: START_REPLICATION options and a decoder for the changes of a schema, or a part of them."""

    options: Callable[..., dict[str, str]]
    decoder: Callable[[str], Decoder]


PLUGINS = {
    "wal2json": Plugin(wal2json.wal2json_options, wal2json.Wal2Json),
    "pgoutput": Plugin(pgoutput.pgoutput_options, pgoutput.PgOutput),
}
