"""What a takeover asks the server about the tables that a consumer reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.decoding.message_rows import MESSAGES
from pgdoc.model.positions import Lsn
from pgdoc.replication.registry import read_existence
from pgdoc.sql import statement

if TYPE_CHECKING:
    import psycopg

    from pgdoc.changes.life import Existence
    from pgdoc.changes.router import Selection
    from pgdoc.model.positions import RawPosition
    from pgdoc.replication.source import Source

__all__ = ["Questions"]


class Questions:
    """The part of `Ownership` that only asks, and needs no claim."""

    _source: Source

    def _one(self, name: str, *params: Any) -> Any:
        raise NotImplementedError

    def _execute(self, query: str, *params: Any) -> psycopg.Cursor[Any]:
        raise NotImplementedError

    def published_since(self, selection: Selection) -> int:
        """Return since which LSN pgoutput sends every change that a consumer can want."""
        wanted = [selection.names, [".".join(MESSAGES)]] if selection.topics else [selection.names]
        return max(int(self._one("published_since", self._source.schema, names)[0]) for names in wanted)

    def publication_fault(self, selection: Selection) -> str | None:
        """Return why pgoutput would leave out changes that a consumer can want; `None` if it would not."""
        query = statement("streams", "publication_fault")
        ((fault,),) = self._execute(query, self._source.schema, selection.names).fetchall()
        if fault is None and selection.topics:
            ((has_messages,),) = self._execute(statement("streams", "messages_published")).fetchall()
            fault = None if has_messages else "lacks pgdoc.messages: run SELECT pgdoc.publish_messages() as its owner"
        return None if fault is None else str(fault)

    def loses_values(self) -> bool:
        """Return whether wal2json can't send some values of a watched table."""
        return bool(self._one("loses_values")[0])

    def exact_since(self, names: list[str] | None) -> int:
        """Return the LSN since which wal2json surely names these tables; `names` as in `Selection.names`."""
        return int(self._one("exact_since", self._source.schema, names)[0])

    def needs_pgoutput(self, selection: Selection, read_from: int) -> bool:
        """Return whether wal2json loses values of these tables, and pgoutput sends all that is wanted from there on."""
        wanted, at = (self._source.schema, selection.names), str(Lsn(read_from))
        return bool(self._one("needs_pgoutput", *wanted, *wanted, at, *wanted, bool(selection.topics), at)[0])

    def existence(self, position: RawPosition, names: frozenset[str] | None) -> Existence | None:
        """Return which of these collections exist at `position`; `None` for all of a schema."""
        if names is None:
            return None
        at = (str(Lsn(position[0])), str(Lsn(position[1])))
        rows = self._execute(statement("consumers", "existed"), self._source.schema, sorted(names), *at).fetchall()
        return read_existence(position[0], rows)
