"""Every error that pgdoc raises.

::

    PgdocError
    ├── StoreClosed                      the store was closed
    ├── TransactionClosed                the transaction has not begun, or is over
    ├── ServerError                      the server, or the way to it, is not what is needed
    │   ├── ServerUnreachable            no connection; may heal by itself
    │   ├── UnsupportedServer            older than 15, or not UTF-8
    │   ├── ServerNotFound               no PostgreSQL on this machine to start (`LocalServer`)
    │   ├── ServerStartFailed            PostgreSQL on this machine did not start (`LocalServer`)
    │   ├── ReplicationUnavailable       documents work, streams do not
    │   │   ├── WalLevelTooLow           wal_level is not logical
    │   │   ├── PluginMissing            the output plugin is not installed on the server
    │   │   ├── PluginNotAllowed         output_plugin_libraries does not list it
    │   │   ├── PublicationIncomplete    the publication that pgoutput reads leaves something out
    │   │   ├── ReplicationNotPermitted  the role lacks REPLICATION, or pg_hba.conf refuses it
    │   │   ├── SlotsExhausted           no free replication slot or walsender
    │   │   └── DirectRouteNeeded        the connection goes through a pooler
    │   └── DatabaseError                any other answer of the server (`sqlstate`)
    ├── CatalogError
    │   ├── CatalogMissing               `pgdoc init` has not been run
    │   └── CatalogVersionMismatch       the catalog is older, or newer, than this pgdoc
    ├── InvalidInput                     also a ValueError; nothing was sent
    │   ├── InvalidName                  of a collection, schema, index or consumer
    │   ├── InvalidDocument              an id or data that can't be stored (`path`)
    │   ├── InvalidFilter                (`path`, `operator`)
    │   └── InvalidUpdate                (`path`, `operator`)
    ├── CollectionNotFound
    ├── DuplicateDocument                the id exists (`document_id`)
    ├── VersionConflict                  `if_version` did not match (`found_version`)
    ├── BulkError                        a write of a bulk failed, and with it all (`index`)
    ├── UnreadableDocument               stored data that Python can't hold
    └── StreamError
        ├── StreamClosed
        ├── SlotBlocked                  open write transactions hold up the first slot (`blockers`)
        ├── HistoryLost                  the position is no longer kept (`oldest_available`)
        ├── InvalidResumeToken           not a position of this cluster
        ├── ConsumerBusy                 another process has the consumer open (`owner_pid`)
        ├── ConsumerLost                 another process has taken the consumer over, or it was dropped
        ├── NotAConsumer                 `ack` and `checkpoint` are for streams with a consumer
        ├── ReplicaIdentityChanged       a collection's table is no longer REPLICA IDENTITY FULL
        └── ProtocolError                a message that the decoder does not know (`offset`)

Every message names the object, what was found, and the next step. The exception of psycopg behind an error is its
``__cause__``. ``resumable`` on the class says whether opening the same stream again from its ``resume_token`` can
succeed without anyone doing anything.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BulkError",
    "CatalogError",
    "CatalogMissing",
    "CatalogVersionMismatch",
    "CollectionNotFound",
    "ConsumerBusy",
    "ConsumerLost",
    "DatabaseError",
    "DirectRouteNeeded",
    "DuplicateDocument",
    "HistoryLost",
    "InvalidDocument",
    "InvalidFilter",
    "InvalidInput",
    "InvalidName",
    "InvalidResumeToken",
    "InvalidUpdate",
    "NotAConsumer",
    "PgdocError",
    "PluginMissing",
    "PluginNotAllowed",
    "ProtocolError",
    "PublicationIncomplete",
    "ReplicaIdentityChanged",
    "ReplicationNotPermitted",
    "ReplicationUnavailable",
    "ServerError",
    "ServerNotFound",
    "ServerStartFailed",
    "ServerUnreachable",
    "SlotBlocked",
    "SlotsExhausted",
    "StoreClosed",
    "StreamClosed",
    "StreamError",
    "TransactionClosed",
    "UnreadableDocument",
    "UnsupportedServer",
    "VersionConflict",
    "WalLevelTooLow",
]


class PgdocError(Exception):
    """The root of all of them."""

    resumable: ClassVar[bool] = False


class StoreClosed(PgdocError):  # noqa: N818 (the field's names: psycopg_pool.PoolClosed)
    """The store was closed."""


class TransactionClosed(PgdocError):  # noqa: N818
    """The transaction has not begun, or is over."""


class ServerError(PgdocError):
    """The server, or the way to it, is not what is needed."""


class ServerUnreachable(ServerError):  # noqa: N818
    """No connection could be made or kept; a stream heals this by itself."""

    resumable = True


class UnsupportedServer(ServerError):  # noqa: N818
    """The server is older than PostgreSQL 15, or the database is not in UTF-8."""


class ServerNotFound(ServerError):  # noqa: N818
    """A `LocalServer` finds no PostgreSQL on this machine that is new enough."""


class ServerStartFailed(ServerError):  # noqa: N818
    """A `LocalServer` did not start, or is not running."""


class ReplicationUnavailable(ServerError):  # noqa: N818
    """Documents work on this server, change streams do not yet."""


class WalLevelTooLow(ReplicationUnavailable):
    """`wal_level` is not `logical`."""


class PluginMissing(ReplicationUnavailable):
    """The output plugin is not installed on the server."""


class PluginNotAllowed(ReplicationUnavailable):
    """`output_plugin_libraries` does not list the output plugin."""


class PublicationIncomplete(ReplicationUnavailable):
    """The publication "pgdoc" is not what pgoutput needs to send every change, and the role may not mend it."""


class ReplicationNotPermitted(ReplicationUnavailable):
    """The role lacks REPLICATION, or pg_hba.conf refuses the connection."""


class SlotsExhausted(ReplicationUnavailable):
    """No free replication slot or walsender."""

    resumable = True


class DirectRouteNeeded(ReplicationUnavailable):
    """The connection goes through a pooler that does not pass replication on."""


class DatabaseError(ServerError):
    """An answer of the server that no other class describes.

    Attributes:
        sqlstate: the five characters of PostgreSQL's appendix A, or `None`.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class CatalogError(PgdocError):
    """The `pgdoc` schema of the database is not the one that this version needs."""


class CatalogMissing(CatalogError):  # noqa: N818
    """The database has no pgdoc catalog."""


class CatalogVersionMismatch(CatalogError):  # noqa: N818
    """The catalog is older, or newer, than this version of pgdoc.

    Attributes:
        found_version: the revision in the database.
        needed_version: the revision that this pgdoc works with.
    """

    def __init__(self, message: str, *, found_version: str, needed_version: str) -> None:
        super().__init__(message)
        self.found_version = found_version
        self.needed_version = needed_version


class InvalidInput(PgdocError, ValueError):  # noqa: N818
    """What was given can't be used; nothing was sent to the server.

    Attributes:
        path: the dotted path in the given value, or `None`.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class InvalidName(InvalidInput):
    """The name of a collection, schema, index or consumer is not one."""


class InvalidDocument(InvalidInput):
    """An id, or data, that can't be stored as given."""


class InvalidFilter(InvalidInput):
    """Not a filter of the document language.

    Attributes:
        operator: the operator at fault, or `None`.
    """

    def __init__(self, message: str, *, path: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, path=path)
        self.operator = operator


class InvalidUpdate(InvalidInput):
    """Not an update of the document language, or one that does not fit the document.

    Attributes:
        operator: the operator at fault, or `None`.
    """

    def __init__(self, message: str, *, path: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, path=path)
        self.operator = operator


class CollectionNotFound(PgdocError):  # noqa: N818
    """There is no such collection, and the store does not create it."""


class DuplicateDocument(PgdocError):  # noqa: N818
    """A document of this id, or with this unique value, exists.

    Attributes:
        document_id: the id, where the server told it.
    """

    def __init__(self, message: str, *, document_id: str | None = None) -> None:
        super().__init__(message)
        self.document_id = document_id


class VersionConflict(PgdocError):  # noqa: N818
    """The document is not at the version that the caller saw.

    Attributes:
        found_version: the version that is stored; `None` where there is no document.
    """

    def __init__(self, message: str, *, found_version: int | None) -> None:
        super().__init__(message)
        self.found_version = found_version


class BulkError(PgdocError):
    """A write of a bulk failed, and nothing of the bulk was stored; the error of the write is the `__cause__`.

    Attributes:
        index: which write, counted from 0 in the order of the calls.
        collection: the name of its collection.
        document_id: the id that it was called with; `None` where it goes by a filter.
    """

    def __init__(self, message: str, *, index: int, collection: str, document_id: str | None) -> None:
        super().__init__(message)
        self.index = index
        self.collection = collection
        self.document_id = document_id


class UnreadableDocument(PgdocError):  # noqa: N818
    """The stored data is JSON that Python can't hold: over 4,300 digits, or nested too deep."""


class StreamError(PgdocError):
    """A change stream can't be opened, or can't go on."""


class StreamClosed(StreamError):  # noqa: N818
    """The stream was closed, or its collections are gone."""


class SlotBlocked(StreamError):  # noqa: N818
    """The first replication slot waits for write transactions that are open.

    Attributes:
        blockers: one `(pid, age in seconds)` a transaction, oldest first. The pid of a prepared transaction is `None`,
            and so is the age of another role's, which only members of `pg_read_all_stats` may see.
    """

    resumable = True

    def __init__(self, message: str, *, blockers: tuple[tuple[int | None, float | None], ...] = ()) -> None:
        super().__init__(message)
        self.blockers = blockers


class ConsumerBusy(StreamError):  # noqa: N818
    """Another process has the consumer open.

    Attributes:
        owner_pid: the server process of its session; `None` where it has just gone.
    """

    def __init__(self, message: str, *, owner_pid: int | None = None) -> None:
        super().__init__(message)
        self.owner_pid = owner_pid


class ConsumerLost(StreamError):  # noqa: N818
    """This process no longer owns the consumer, or what it wants to do for it was done: nothing more may be stored."""


class NotAConsumer(StreamError):  # noqa: N818
    """The stream has no consumer whose place could be stored."""


class HistoryLost(StreamError):  # noqa: N818
    """The server no longer keeps the WAL of the position.

    Attributes:
        oldest_available: the oldest LSN that a stream can still start at, as text; `None` where there is none.
    """

    def __init__(self, message: str, *, oldest_available: str | None = None) -> None:
        super().__init__(message)
        self.oldest_available = oldest_available


class InvalidResumeToken(StreamError, ValueError):  # noqa: N818
    """The token is not one, or not a position of this cluster."""


class ReplicaIdentityChanged(StreamError):  # noqa: N818
    """A collection's table is no longer REPLICA IDENTITY FULL, so before images are missing."""


class ProtocolError(StreamError):
    """A message of the server that the decoder does not understand.

    Attributes:
        offset: the byte of the message where decoding stopped.
    """

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset
