"""The root of all errors, and the errors of closed objects."""

from __future__ import annotations

from typing import ClassVar


class PgdocError(Exception):
    """The base class of all errors that pgdoc raises.

    Attributes:
        resumable: whether opening the same stream again from its `resume_token` can succeed without anyone changing
            anything.
        retryable: whether running the same call again can succeed without anyone changing anything, and stores nothing
            twice, because nothing of the failed call was stored. For an error inside a transaction or bulk, that is the
            whole transaction or bulk. `store.run` does so.
    """

    resumable: ClassVar[bool] = False
    retryable: ClassVar[bool] = False


class StoreClosed(PgdocError):  # noqa: N818 (the field's names: psycopg_pool.PoolClosed)
    """The store is closed, or was used before a fork: open a new store, after a fork in the child."""


class TransactionClosed(PgdocError):  # noqa: N818
    """A transaction or bulk is used outside its block, or a bulk after one of its writes failed: begin a new one."""


class MissingExtra(PgdocError, ImportError):  # noqa: N818
    """A call needs a package of one of pgdoc's extras: install the extra that the message names."""
