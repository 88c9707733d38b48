"""The output plugins that pgdoc can read, in order of preference: their options and decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from pgdoc.decoding import pgoutput, wal2json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.decoding.records import Record


class Decoder(Protocol):
    """Decodes frames to records."""

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Return the records of the frames, in order."""


class Plugin(NamedTuple):
    """An output plugin.

    Attributes:
        options: returns the options of START_REPLICATION for the changes of a schema.
        decoder: makes a decoder for the changes of a schema.
    """

    options: Callable[[str], dict[str, str]]
    decoder: Callable[[str], Decoder]


PLUGINS = {
    "wal2json": Plugin(wal2json.wal2json_options, lambda _schema: wal2json.Wal2Json()),
    "pgoutput": Plugin(pgoutput.pgoutput_options, pgoutput.PgOutput),
}
