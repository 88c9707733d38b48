"""The output plugins that can be read, best first, and how each is asked and understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from pgdoc.decoding import pgoutput, wal2json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgdoc.decoding.records import Record


class Decoder(Protocol):
    """What turns frames into records."""

    def decode(self, frames: Iterable[bytes]) -> list[Record]:
        """Give the records of frames, in order."""


class Plugin(NamedTuple):
    """An output plugin.

    Attributes:
        options: of START_REPLICATION, for the changes of a schema.
        decoder: makes what reads them.
    """

    options: Callable[[str], dict[str, str]]
    decoder: Callable[[str], Decoder]


PLUGINS = {
    "wal2json": Plugin(wal2json.wal2json_options, lambda _schema: wal2json.Wal2Json()),
    "pgoutput": Plugin(pgoutput.pgoutput_options, pgoutput.PgOutput),
}
