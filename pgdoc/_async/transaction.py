"""A transaction over several collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from pgdoc._async.bulk import AsyncBulk
from pgdoc._async.collection import AsyncCollection
from pgdoc._async.publishing import publish_message
from pgdoc.model.names import check_index

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from psycopg import AsyncConnection
    from typing_extensions import TypeForm

    from pgdoc._async.transaction_session import AsyncTransactionSession
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.positions import Lsn
    from pgdoc.model.type_variables import N

__all__ = ["AsyncTransaction"]


class AsyncTransaction:
    """One transaction: `store.transaction()` returns it, `async with` begins and ends it.

    It commits at the end of the block, and rolls back when an exception leaves the block.
    """

    def __init__(self, session: AsyncTransactionSession, schema: str, *, auto_create: bool) -> None:
        self._session = session
        self._schema = schema
        self._auto_create = auto_create
        self._lsn: Lsn | None = None

    @property
    def connection(self) -> AsyncConnection[Any]:
        """The psycopg connection of this transaction, to run your own SQL; it raises psycopg's errors.

        Raises:
            TransactionClosed: the transaction has not begun, or has ended.
        """
        return self._session.connection

    async def lsn(self) -> Lsn:
        """Return an LSN behind this transaction, which has committed: what `wait_for` takes.

        The first call asks the server, so a transaction that nobody waits for costs nothing more. It is beyond the
        transaction's own commit LSN, and may be beyond those of others that committed before the first call.

        Raises:
            TransactionClosed: the transaction has not committed.
        """
        if self._lsn is None:
            self._lsn = await self._session.fetch_lsn()
        return self._lsn

    @overload
    def collection(self, name: str, model: None = None) -> AsyncCollection: ...

    @overload
    def collection(self, name: str, model: type[N]) -> AsyncCollection[N]: ...

    @overload
    def collection(self, name: str, model: TypeForm[N]) -> AsyncCollection[N]: ...

    def collection(self, name: str, model: Any = None) -> AsyncCollection[Any]:
        """Return a handle whose calls are part of this transaction. `tx[name]` does the same without a model.

        Args:
            name: the name of the collection.
            model: as for `AsyncStore.collection`.

        Raises:
            InvalidName: `name` is not a valid collection name.
            InvalidInput: `model` is not a model, or its library can't read it.
            MissingExtra: the library that reads the model is not installed.
        """
        return AsyncCollection(self._session, self._schema, name, auto_create=self._auto_create, model=model)

    def __getitem__(self, name: str) -> AsyncCollection:
        return self.collection(check_index(name, "tx"))

    async def publish(self, topic: str, payload: Any, key: DocumentId | None = None) -> None:
        """Publish an event of your own: streams on its topic get it, in order with the changes of this transaction.

        Nothing is stored: the event is only in the WAL, as the changes are, and is delivered once the transaction
        commits. Those that are rolled back are not delivered.

        Args:
            topic: words of `A-Z`, `a-z`, `0-9`, `_` and `-` with dots between them, such as `order.shipped`.
            payload: any JSON value, or what the store's encoder makes one of; at most 64 MiB of JSON text.
            key: what the event is about, such as the id of a document: events of one key are handled in order. It
                becomes the `document_id` of the event.

        Raises:
            InvalidName: `topic` is not a valid topic.
            InvalidDocument: the payload can't be represented as JSON, or `key` is not a valid id. Nothing was sent.
            DocumentTooLarge: the payload is too large.
            DatabaseError: among other reasons, the role may not publish; the message says what to grant.
            TransactionClosed: the transaction has not begun, or has ended.
        """
        await publish_message(self._session, topic, payload, key)

    def bulk(self, *, ordered: bool = True) -> AsyncBulk:
        """Return a bulk whose writes are part of this transaction; enter it with `async with tx.bulk() as b`.

        A bulk that fails is undone, and the transaction stays usable. All calls on the transaction inside the block are
        part of the bulk.

        Args:
            ordered: if false, a write that fails leaves the others alone; the end raises `BulkIncomplete`.
        """
        return AsyncBulk(self._session, self._schema, auto_create=self._auto_create, ordered=ordered, inside=True)

    async def __aenter__(self) -> Self:
        self._session.note_metadata()
        await self._session.begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return await self._session.end(exc_type, exc, traceback)
