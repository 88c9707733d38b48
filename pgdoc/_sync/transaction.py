# Written by .ci/twins.py from pgdoc/_async/transaction.py: change that file, and run it.
"""A transaction over several collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc._sync.bulk import Bulk
from pgdoc._sync.collection import Collection

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from psycopg import Connection

    from pgdoc._sync.transaction_session import TransactionSession
    from pgdoc.model.positions import Lsn

__all__ = ["Transaction"]


class Transaction:
    """One transaction: `store.transaction()` returns it, `with` begins and ends it.

    It commits at the end of the block, and rolls back when an exception leaves the block.
    """

    def __init__(self, session: TransactionSession, schema: str, *, auto_create: bool) -> None:
        self._session = session
        self._schema = schema
        self._auto_create = auto_create
        self._lsn: Lsn | None = None

    @property
    def connection(self) -> Connection[Any]:
        """The psycopg connection of this transaction, to run your own SQL; it raises psycopg's errors.

        Raises:
            TransactionClosed: the transaction has not begun, or has ended.
        """
        return self._session.connection

    def lsn(self) -> Lsn:
        """Return an LSN behind this transaction, which has committed: what `wait_for` takes.

        The first call asks the server, so a transaction that nobody waits for costs nothing more. It is beyond the
        transaction's own commit LSN, and may be beyond those of others that committed before the first call.

        Raises:
            TransactionClosed: the transaction has not committed.
        """
        if self._lsn is None:
            self._lsn = self._session.fetch_lsn()
        return self._lsn

    def collection(self, name: str) -> Collection:
        """Return a handle whose calls are part of this transaction. `tx[name]` does the same.

        Raises:
            InvalidName: `name` is not a valid collection name.
        """
        return Collection(self._session, self._schema, name, auto_create=self._auto_create)

    __getitem__ = collection

    def bulk(self, *, ordered: bool = True) -> Bulk:
        """Return a bulk whose writes are part of this transaction; enter it with `with tx.bulk() as b`.

        A bulk that fails is undone, and the transaction stays usable. All calls on the transaction inside the block are
        part of the bulk.

        Args:
            ordered: if false, a write that fails leaves the others alone; the end raises `BulkIncomplete`.
        """
        return Bulk(self._session, self._schema, auto_create=self._auto_create, ordered=ordered, inside=True)

    def __enter__(self) -> Self:
        self._session.note_metadata()
        self._session.begin()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._session.end(exc_type, exc, traceback)
