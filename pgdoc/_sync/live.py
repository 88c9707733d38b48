# Written by .ci/twins.py from pgdoc/_async/live.py: change that file, and run it.
"""Live queries: results that the database keeps up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

from pgdoc._sync.live_handle import LiveHandle
from pgdoc._sync.live_reader import prepared
from pgdoc.changes.events import event_read_as, twin_of
from pgdoc.crud.find_query import Search
from pgdoc.errors import StreamError, UnreadableDocument
from pgdoc.live.changes import LiveChange, applied
from pgdoc.live.difference import difference
from pgdoc.live.images import copy_of
from pgdoc.live.order import DocumentOrder
from pgdoc.live.routing import required_value
from pgdoc.live.shared import LiveWanted
from pgdoc.live.window import LiveWindow
from pgdoc.model.documents import document_read_as
from pgdoc.model.table_names import is_table_name
from pgdoc.model.type_variables import M_co
from pgdoc.query.filters.match import matcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc._sync.live_reader import LiveReader
    from pgdoc._sync.live_sources import LiveSources
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.live.shared import LiveRows
    from pgdoc.model.documents import Document
    from pgdoc.model.typed.reader import ModelReader
    from pgdoc.query.filters.projection import Projection
    from pgdoc.query.filters.projection_parse import Fields

__all__ = ["LiveQuery", "live_query"]

_SMALL: Final = 1_000
_MOST_PENDING: Final = 500
_SPARE_OF_TABLE: Final = 10_000


class _Result(NamedTuple):
    """The documents of a handle.

    Attributes:
        shared: as all handles of the query share them.
        own: those that this handle gives out.
        pending: the changes that are not applied to the two lists yet, with the shared document of each.
    """

    shared: list[Document[Any]]
    own: list[Document[Any]]
    pending: tuple[tuple[LiveChange[Any], Document[Any]], ...] = ()

    def after(self, changes: list[tuple[LiveChange[Any], Document[Any]]]) -> _Result:
        """Return the result after changes; a large one is not copied each time."""
        pending = (*self.pending, *changes)
        result = _Result(self.shared, self.own, pending)
        return result if len(self.own) > _SMALL and len(pending) <= _MOST_PENDING else result.settled()

    def settled(self) -> _Result:
        """Return it with all changes applied."""
        if not self.pending:
            return self
        shared, own = [*self.shared], [*self.own]
        for change, document in self.pending:
            applied(shared, change, document)
            applied(own, change, change.document)
        return _Result(shared, own)


class LiveQuery(LiveHandle[LiveChange[M_co]], Generic[M_co]):
    """The documents that match a filter, and what changes about them.

    Returned by `live()`. Iterate over it, or call `next` or `next_batch`. Only one task may read it.

    The result only moves between places in the WAL where transactions end: there, `documents` equals what `find` with
    the same arguments returns. It reconnects automatically, and reads everything again where the server no longer has
    the changes. A handle that is far behind gets the difference to the newest result.
    """

    def __init__(
        self,
        sources: LiveSources,
        name: str,
        wanted: LiveWanted[LiveChange[M_co]],
        search: Search,
        reader: ModelReader[M_co] | None,
    ) -> None:
        super().__init__(sources, name, wanted)
        self._reader = None if search.projection is not None else reader
        self._search = search
        self._order = DocumentOrder(search.keys)
        self._projection: Projection | None = search.projection

    def _again(self) -> LiveQuery[M_co]:
        """Return the same query, not open yet."""
        return LiveQuery(self._sources, self._name, self._wanted, self._search, self._reader)

    @property
    def documents(self) -> list[Document[M_co]]:
        """The result at the handle's place, in order: a new list of documents of its own.

        Raises:
            StreamError: an async query is not open yet.
        """
        result: _Result | None = self._result
        if result is None:
            raise StreamError("the live query is not open: it, or enter it, first")
        if result.pending:
            result = result.settled()
            self._result = result
        return [*result.own]

    def _shown(self, state: Any) -> list[Document[Any]]:
        window: LiveWindow = state
        return window.documents

    def _result_of(self, shown: list[Document[Any]]) -> _Result:
        return _Result(shown, [self._own(document) for document in shown])

    def _changes_to(self, shown: list[Document[Any]]) -> list[LiveChange[M_co]]:
        result: _Result = self._result
        return difference(self._order, result.settled().shared, shown)

    def _handed_out(self, changes: list[LiveChange[M_co]]) -> tuple[list[LiveChange[M_co]], _Result]:
        own = [
            LiveChange(
                change.kind,
                self._own(change.document),
                change.old_index,
                change.new_index,
                None if change.event is None else self._own_event(change.event),
            )
            for change in changes
        ]
        result: _Result = self._result
        return own, result.after([(change, each.document) for change, each in zip(own, changes, strict=True)])

    def _own(self, document: Document[Any]) -> Document[Any]:
        """Return a copy to give out: the user may change its data."""
        if self._reader is not None:
            return document_read_as(self._reader, document)
        try:
            return copy_of(document, self._projection)
        except UnreadableDocument:  # who uses it gets the error
            return copy_of(document)

    def _own_event(self, event: ChangeEvent[Any]) -> ChangeEvent[Any]:
        return twin_of(event) if self._reader is None else event_read_as(self._reader, event)


def live_query(  # noqa: PLR0913
    sources: LiveSources | None,
    name: str,
    filter: Mapping[str, Any] | None,  # noqa: A002
    *,
    sort: str | Sequence[str] | None,
    limit: int | None,
    fields: Fields | None,
    collation: str | None,
    reader: ModelReader[Any] | None = None,
) -> LiveQuery[Any]:
    """Check the arguments, and return the query, which is not open yet."""
    if sources is None:
        raise StreamError(f'"{name}" has no live queries inside a transaction: call live() on the store\'s collection')
    encoder = sources.session.codec.encoder
    search = Search(filter, sort=sort, limit=limit, fields=fields, encoder=encoder, collation=collation)
    node, keys = search.node, search.keys
    passes = matcher(node)

    def read(reader: LiveReader, state: LiveWindow) -> LiveRows | None:
        rows = reader.documents(wanted_rows.limited(state.read_limit), lambda image: image.passes(passes))
        return prepared(rows, state.prepared)

    wanted_rows = search.unprojected()
    # A read of a table reads all of it, so it should not come often.
    spare = {"spare": _SPARE_OF_TABLE} if is_table_name(name) else {}
    wanted = LiveWanted(
        key=("documents", repr(node), repr(keys), limit),
        required=required_value(node),
        make_state=lambda: LiveWindow(node, keys, limit, **spare),
        read=read,
    )
    return LiveQuery[Any](sources, name, wanted, search, reader)
