"""Mirrors: the documents of a collection in memory, kept up to date in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self

from pgdoc._async.live_handle import AsyncLiveHandle
from pgdoc._async.live_reader import prepared
from pgdoc.crud.find_query import Search
from pgdoc.errors import StreamClosed, StreamError, WaitTimeout
from pgdoc.live.mirrored import Mirrored
from pgdoc.live.routing import required_value
from pgdoc.live.shared import LiveWanted
from pgdoc.model.documents import Document
from pgdoc.model.positions import Lsn, commit_lsn_of
from pgdoc.model.type_variables import M
from pgdoc.query.filters.match import matcher
from pgdoc.runtime.primitives import AsyncOpening, async_sleep
from pgdoc.streams.patience import TIMEOUT_S, Patience, check_lsn, check_wal_has

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, ValuesView

    from pgdoc._async.live_reader import AsyncLiveReader
    from pgdoc._async.live_sources import AsyncLiveSources
    from pgdoc.live.shared import LiveRows, SharedQuery
    from pgdoc.live.state import LiveState
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.model.typed.reader import ModelReader

__all__ = ["AsyncMirror", "mirror_of"]


class _AsyncFollower(AsyncLiveHandle["NoReturn"]):
    """Keeps the state of a mirror up to date, and hands out nothing."""

    @property
    def state(self) -> Mirrored | None:
        """What the mirror reads; `None` while it is not open."""
        query: SharedQuery[Any] | None = self._query
        if query is None:
            return None
        assert isinstance(query.state, Mirrored)  # noqa: S101 (see `mirror_of`)
        return query.state

    @property
    def error(self) -> BaseException | None:
        """What has ended it, except for `close`."""
        return self._inbox.error

    def has_passed(self, lsn: int) -> bool:
        """Return whether the state has everything that committed before `lsn`."""
        source, query = self._source, self._query
        if source is None or query is None:
            return False
        with source.lock:
            return query.is_current and source.queries.place.position >= (lsn,)

    def ask(self) -> None:
        """Have the server say at once how far its WAL goes."""
        if self._source is not None:
            self._source.look(ask=True)

    def documents(self, state: Mirrored) -> dict[str, Document[Any]]:
        """Return a copy of what the state shows, which belongs to one place in the WAL."""
        source = self._source
        assert source is not None  # noqa: S101 (there is a state)
        with source.lock:
            return dict(state.shown)

    def _shown(self, state: LiveState[Any]) -> None:
        pass

    def _result_of(self, shown: None) -> None:
        pass

    def _changes_to(self, shown: None) -> list[Any]:  # noqa: ARG002
        return []

    def _handed_out(self, changes: list[Any]) -> tuple[list[Any], None]:
        return changes, None


class AsyncMirror(Mapping[str, Document[M]], AsyncOpening, Generic[M]):
    """The documents of a collection or table, by id: a read-only mapping that follows it in the background.

    Returned by `mirror()`. Any thread may read it. It only moves between places in the WAL where transactions end. Each
    look-up reads the newest place; `copy`, iterating, `items` and `values` have all documents at one place.

    A document is the same object until it changes, for all readers: do not change its data.

    It reconnects automatically, and keeps its documents meanwhile. After an error that ends it, each access raises that
    error. After `close`, the documents stay.
    """

    def __init__(self, sources: AsyncLiveSources, name: str, wanted: LiveWanted[NoReturn]) -> None:
        self._sources, self._name = sources, name
        self._follower = _AsyncFollower(sources, name, wanted)

    async def _open(self) -> Self:
        await self._follower._open()  # noqa: SLF001 (its own)
        return self

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __getitem__(self, document_id: str) -> Document[M]:
        return self._state.shown[document_id]

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._state.shown

    def __len__(self) -> int:
        return len(self._state.shown)

    def __iter__(self) -> Iterator[str]:
        return iter(self._follower.documents(self._state))

    def copy(self) -> dict[str, Document[M]]:
        """Return all documents, as they were at one place in the WAL."""
        return self._follower.documents(self._state)

    def items(self) -> ItemsView[str, Document[M]]:
        """Return the pairs of id and document, as they were at one place in the WAL."""
        return self.copy().items()

    def values(self) -> ValuesView[Document[M]]:
        """Return the documents, as they were at one place in the WAL."""
        return self.copy().values()

    def __repr__(self) -> str:
        state = self._follower.state
        held = "not open" if state is None else f"{len(state.shown)} documents"
        return f"<{type(self).__name__} of {self._name!r}: {held}>"

    @property
    def _state(self) -> Mirrored:
        """What is shown. Python's look-up in a dict needs no lock; the source's thread writes it."""
        state = self._follower.state
        if self._follower.error is not None:
            raise self._follower.error.with_traceback(None)
        if state is None:
            raise StreamError("the mirror is not open: await it, or enter it, first")
        return state

    @property
    def resume_token(self) -> ResumeToken:
        """A place in the WAL that the documents have reached: they have everything that committed before it.

        Raises:
            StreamError: an async mirror is not open yet.
        """
        return self._follower.resume_token

    async def wait_for(
        self,
        lsn: Lsn | str | None = None,
        timeout: float | None = TIMEOUT_S,  # noqa: ASYNC109 (as a stream's)
    ) -> None:
        """Wait until the documents have everything that committed before `lsn`. Any thread or task may call it.

        Args:
            lsn: from `store.now()` or `tx.lsn()`; by default everything that was committed before the call.
            timeout: seconds to wait; `None` waits as long as the mirror is open.

        Raises:
            WaitTimeout: it has not come so far in time.
            StreamClosed: it was closed before.
            InvalidInput: `lsn` is not an LSN.
            InvalidResumeToken: `lsn` lies beyond the end of the server's WAL.
            PgdocError: the error that ended the mirror.
        """
        wanted = None if lsn is None else check_lsn("lsn", lsn)
        patience, follower = Patience(timeout), self._follower
        if wanted is not None and follower.has_passed(wanted):
            return
        ((inserted, flushed),) = await self._sources.backend.fetch("now")
        wanted = Lsn(inserted) if wanted is None else wanted
        check_wal_has(wanted, inserted)
        if flushed < wanted:  # the stream gets no further than what is flushed
            await self._sources.backend.fetch("flush")
        while not follower.has_passed(wanted):
            _ = self._state  # raises what has ended it
            if follower.closed:
                raise StreamClosed(f"the mirror was closed before it had everything before {wanted}")
            if patience.is_over:
                raise self._timed_out(wanted, patience.timeout_s)
            follower.ask()
            await async_sleep(patience.pause_s)

    def _timed_out(self, lsn: Lsn, timeout_s: float | None) -> WaitTimeout:
        reached = Lsn(commit_lsn_of(self.resume_token.position))
        return WaitTimeout(
            f"the mirror has not come to {lsn} within {timeout_s:g} s, it is at {reached}: wait longer, and look into "
            "the connection to the server",
            reached=str(reached),
        )

    @property
    def closed(self) -> bool:
        """Whether it does not follow any more."""
        return self._follower.closed

    async def close(self) -> None:
        """Stop following; the documents stay. A second call does nothing."""
        await self._follower.close()


def mirror_of(
    sources: AsyncLiveSources | None,
    name: str,
    filter: Mapping[str, Any] | None,  # noqa: A002
    reader: ModelReader[Any] | None = None,
) -> AsyncMirror[Any]:
    """Check the arguments, and return the mirror, which is not open yet."""
    if sources is None:
        raise StreamError(f'"{name}" has no mirror inside a transaction: call mirror() on the store\'s collection')
    search = Search(filter, encoder=sources.session.codec.encoder)
    node = search.node
    passes = matcher(node)

    async def read(source: AsyncLiveReader, state: Mirrored) -> LiveRows | None:
        return await prepared(await source.documents(search, lambda image: image.passes(passes)), state.prepared)

    wanted: LiveWanted[Any] = LiveWanted(
        key=("mirror", repr(node), reader),
        required=required_value(node),
        make_state=lambda: Mirrored(node, reader),
        read=read,
    )
    return AsyncMirror[Any](sources, name, wanted)
