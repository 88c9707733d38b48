"""Many writes in few round trips, as one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from pgdoc._async.bulk_collection import AsyncBulkCollection
from pgdoc._async.bulk_queue import AsyncBulkQueue
from pgdoc._async.bulk_unordered import AsyncUnorderedQueue
from pgdoc.crud.bulk_results import BulkResult, incomplete
from pgdoc.errors import TransactionClosed
from pgdoc.model.names import check_index

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import TypeForm

    from pgdoc._async.transaction_session import AsyncSavepoint, AsyncTransactionSession
    from pgdoc.model.type_variables import N

__all__ = ["AsyncBulk"]


class AsyncBulk:
    """Many writes in one transaction: `store.bulk()` returns it, `async with` sends and commits them.

    That of `tx.bulk()` is a part of the transaction, which commits it.

    Writes are queued until there are 1,000 of them, or 1 MiB, or the block ends, then sent in the order of their calls,
    in one round trip. The transaction begins when the first writes are sent, and commits at the end of the block.

    A write that fails raises `BulkError`, from the call that sent it or at the end of the block; nothing is stored.
    With `ordered=False`, all other writes are stored, and the end of the block raises `BulkIncomplete`.
    """

    def __init__(
        self, session: AsyncTransactionSession, schema: str, *, auto_create: bool, ordered: bool, inside: bool = False
    ) -> None:
        self._session = session
        self._schema = schema
        self._auto_create = auto_create
        kind = AsyncBulkQueue if ordered else AsyncUnorderedQueue
        self._queue = kind(session, auto_create=auto_create)
        self._entered = False
        self._inside = inside  # a transaction that others begin and end
        self._savepoint: AsyncSavepoint | None = None
        self._result = BulkResult()

    @property
    def result(self) -> BulkResult:
        """How many documents were written; all zeros until the bulk has committed."""
        return self._result

    @overload
    def collection(self, name: str, model: None = None) -> AsyncBulkCollection: ...

    @overload
    def collection(self, name: str, model: type[N]) -> AsyncBulkCollection[N]: ...

    @overload
    def collection(self, name: str, model: TypeForm[N]) -> AsyncBulkCollection[N]: ...

    def collection(self, name: str, model: Any = None) -> AsyncBulkCollection[Any]:
        """Return a handle whose writes are part of this bulk. `b[name]` does the same without a model.

        Args:
            name: the name of the collection.
            model: as for `AsyncStore.collection`.

        Raises:
            InvalidName: `name` is not a valid collection name.
            InvalidInput: `model` is not a model, or its library can't read it.
            MissingExtra: the library that reads the model is not installed.
        """
        return AsyncBulkCollection(
            self._queue, self._session, self._schema, name, auto_create=self._auto_create, model=model
        )

    def __getitem__(self, name: str) -> AsyncBulkCollection:
        return self.collection(check_index(name, "bulk"))

    async def __aenter__(self) -> Self:
        if self._entered:
            raise TransactionClosed("the bulk was used before: call store.bulk() for another")
        if self._inside:
            self._savepoint = await self._session.open_savepoint()
        else:
            self._session.note_metadata()
        self._entered = self._queue.is_open = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            if exc is None:
                await self._queue.finish()
        except BaseException as error:
            await self._end(type(error), error, error.__traceback__)
            raise
        swallowed = await self._end(exc_type, exc, traceback)
        if exc is None:
            self._report()
        return swallowed

    def _report(self) -> None:
        queue = self._queue
        failures = tuple(queue.failures) if isinstance(queue, AsyncUnorderedQueue) else ()
        self._result = BulkResult(**queue.counts, failures=failures)
        if failures:
            raise incomplete(failures)

    async def _end(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._queue.close()
        if self._savepoint is not None:
            return await self._session.close_savepoint(self._savepoint, exc_type, exc, traceback)
        return await self._session.end(exc_type, exc, traceback)
