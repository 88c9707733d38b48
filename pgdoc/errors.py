"""Every error that pgdoc raises.

::

    PgdocError
    ├── StoreClosed                      the store is closed
    ├── TransactionClosed                the transaction or bulk has not begun, or has ended
    ├── ServerError                      a problem with the server, or with the connection to it
    │   ├── ServerUnreachable            no connection, or it was lost (resumable)
    │   ├── UnsupportedServer            older than PostgreSQL 15, or not UTF-8
    │   ├── ServerNotFound               `LocalServer` found no PostgreSQL on this machine
    │   ├── ServerStartFailed            `LocalServer` did not start, or is not running
    │   ├── ReplicationUnavailable       documents work on this server, streams do not
    │   │   ├── WalLevelTooLow           wal_level is not logical
    │   │   ├── PluginMissing            the output plugin is not installed on the server
    │   │   ├── PluginNotAllowed         output_plugin_libraries does not list the output plugin
    │   │   ├── PublicationIncomplete    the publication for pgoutput lacks something
    │   │   ├── ReplicationNotPermitted  the role lacks REPLICATION, or pg_hba.conf refuses it
    │   │   ├── SlotsExhausted           no free replication slot or walsender (resumable)
    │   │   └── DirectRouteNeeded        the connection goes through a pooler
    │   └── DatabaseError                any other error of the server (`sqlstate`)
    ├── CatalogError
    │   ├── CatalogMissing               the database has no pgdoc catalog
    │   ├── CatalogNotTrusted            a superuser connects, but another role owns the catalog
    │   ├── RegistryUnbound              the catalog belongs to another database: this one was copied or restored
    │   └── CatalogVersionMismatch       the catalog is older or newer than pgdoc (`found_version`, `needed_version`)
    ├── InvalidInput                     an argument is not valid; also a ValueError (`path`)
    │   ├── InvalidName                  of a collection, schema, index or consumer
    │   ├── InvalidDocument              an id, data or metadata that can't be stored
    │   ├── InvalidFilter                (`operator`)
    │   └── InvalidUpdate                (`operator`)
    ├── CollectionNotFound               the collection does not exist, or a table is none
    ├── DuplicateDocument                the id, or a unique value, already exists (`document_id`)
    ├── VersionConflict                  the document is not at version `if_version` (`found_version`)
    ├── BulkError                        a write of a bulk failed (`index`, `collection`, `document_id`)
    ├── UnreadableDocument               stored data that Python can't represent
    └── StreamError
        ├── StreamClosed                 the stream is closed
        ├── SlotBlocked                  open write transactions block the first slot (resumable, `blockers`)
        ├── HistoryLost                  the server no longer keeps the position (`oldest_available`)
        ├── InvalidResumeToken           not a position of this cluster; also a ValueError
        ├── ConsumerBusy                 the consumer is open elsewhere (`owner_pid`)
        ├── ConsumerLost                 the consumer was taken over or dropped
        ├── NotAConsumer                 `ack` and `checkpoint` need a stream with a consumer
        ├── ReplicaIdentityChanged       a collection's table is no longer REPLICA IDENTITY FULL
        └── ProtocolError                a message that the decoder does not understand (`offset`)

Each message names the object, the finding and the next step. An error that comes from psycopg has psycopg's exception
as its ``__cause__``. The class attribute ``resumable`` says whether opening the same stream again from its
``resume_token`` can succeed without anyone changing anything.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BulkError",
    "CatalogError",
    "CatalogMissing",
    "CatalogNotTrusted",
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
    "RegistryUnbound",
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
    """The base class of all errors that pgdoc raises.

    Attributes:
        resumable: whether opening the same stream again from its `resume_token` can succeed without anyone changing
            anything.
    """

    resumable: ClassVar[bool] = False


class StoreClosed(PgdocError):  # noqa: N818 (the field's names: psycopg_pool.PoolClosed)
    """The store is closed, or was used before a fork: open a new store, after a fork in the child."""


class TransactionClosed(PgdocError):  # noqa: N818
    """A transaction or bulk is used outside its block, or a bulk after one of its writes failed: begin a new one."""


class ServerError(PgdocError):
    """There is a problem with the server, or with the connection to it; each subclass names one."""


class ServerUnreachable(ServerError):  # noqa: N818
    """No connection could be made, or it was lost: try again, and check the conninfo if that does not help.

    A write whose connection was lost may or may not be committed. An open stream reconnects by itself.
    """

    resumable = True


class UnsupportedServer(ServerError):  # noqa: N818
    """The server is older than PostgreSQL 15, or the database's encoding is not UTF-8: use another one."""


class ServerNotFound(ServerError):  # noqa: N818
    """`LocalServer` found no PostgreSQL 15 or newer on this machine: install one, or name its `bin_dir`."""


class ServerStartFailed(ServerError):  # noqa: N818
    """`LocalServer` did not start, or is not running: read the log in the message, or call `start()`."""


class ReplicationUnavailable(ServerError):  # noqa: N818
    """Documents work on this server, but streams do not; each subclass names a reason. `pgdoc doctor` checks all."""


class WalLevelTooLow(ReplicationUnavailable):
    """`wal_level` is not `logical`: set it, and restart the server."""


class PluginMissing(ReplicationUnavailable):
    """The output plugin is not installed on the server: install it, or use `plugin="auto"`."""


class PluginNotAllowed(ReplicationUnavailable):
    """`output_plugin_libraries` does not list the output plugin: add it, or use `plugin="auto"`."""


class PublicationIncomplete(ReplicationUnavailable):
    """The publication "pgdoc" does not send every change, and the role may not repair it.

    Run the statement in the message as the owner of the publication.
    """


class ReplicationNotPermitted(ReplicationUnavailable):
    """The role lacks REPLICATION, or `pg_hba.conf` refuses the connection: grant it, or add a line there."""


class SlotsExhausted(ReplicationUnavailable):
    """The server has no free replication slot or walsender.

    Close streams and drop unused slots, or raise `max_replication_slots` or `max_wal_senders`.
    """

    resumable = True


class DirectRouteNeeded(ReplicationUnavailable):
    """The connection goes through a pooler, which does not support replication.

    Give the server's own host and port as `replication_conninfo`.
    """


class DatabaseError(ServerError):
    """The server reported an error that no other class describes; `sqlstate` says which.

    Run a transaction again after a code that starts with `40`, a deadlock or serialization failure.

    Attributes:
        sqlstate: the five characters of PostgreSQL's appendix A; `None` if there is no code.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class CatalogError(PgdocError):
    """The `pgdoc` schema of the database does not work with this version of pgdoc."""


class CatalogMissing(CatalogError):  # noqa: N818
    """The database has no pgdoc catalog: create it with `pgdoc init` or `store.migrate()`."""


class CatalogNotTrusted(CatalogError):  # noqa: N818
    """A superuser connects, but a role that is none owns the catalog: connect as that role, or as another one.

    The owner of a function decides what it does, and it would do that with the superuser's rights.
    """


class CatalogVersionMismatch(CatalogError):  # noqa: N818
    """The catalog is older or newer than this version of pgdoc: run `pgdoc init`, or install a newer pgdoc.

    Attributes:
        found_version: the revision in the database.
        needed_version: the revision that this version of pgdoc needs.
    """

    def __init__(self, message: str, *, found_version: str, needed_version: str) -> None:
        super().__init__(message)
        self.found_version = found_version
        self.needed_version = needed_version


class RegistryUnbound(CatalogError):  # noqa: N818
    """The database is a copy, or was restored from a dump, and its registry of collections belongs to the original.

    Run `pgdoc init` as the catalog's owner, or `SELECT pgdoc.rebind()`.
    """


class InvalidInput(PgdocError, ValueError):  # noqa: N818
    """An argument is not valid: correct it. Nothing was sent to the server.

    Attributes:
        path: the dotted path of the fault within the argument; `None` if there is none.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class InvalidName(InvalidInput):
    """The name of a collection, schema, index or consumer is not valid, or the new name of a collection is taken."""


class InvalidDocument(InvalidInput):
    """An id, a document's data or metadata can't be stored: it must be valid JSON, within pgdoc's limits."""


class InvalidFilter(InvalidInput):
    """The filter is not valid: see the reference of query filters.

    Attributes:
        operator: the operator at fault; `None` if there is none.
    """

    def __init__(self, message: str, *, path: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, path=path)
        self.operator = operator


class InvalidUpdate(InvalidInput):
    """The update is not valid, or does not fit the stored document; nothing was changed.

    Attributes:
        operator: the operator at fault; `None` if there is none.
    """

    def __init__(self, message: str, *, path: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, path=path)
        self.operator = operator


class CollectionNotFound(PgdocError):  # noqa: N818
    """The collection does not exist and the call does not create it, or a table of that name is not a collection.

    Create it with `store.create_collection()`, use another name, or make the table a collection with
    `SELECT pgdoc.register('docs.orders')`. No call reads or changes a table that is not a collection.
    """


class DuplicateDocument(PgdocError):  # noqa: N818
    """A document with this id, or with this value of a unique index, already exists: replace or update it.

    Attributes:
        document_id: the id; `None` if the server does not report it.
    """

    def __init__(self, message: str, *, document_id: str | None = None) -> None:
        super().__init__(message)
        self.document_id = document_id


class VersionConflict(PgdocError):  # noqa: N818
    """The document is not at the version in `if_version`: read it again, and repeat the change. Nothing was changed.

    Attributes:
        found_version: the stored version; `None` if there is no document.
    """

    def __init__(self, message: str, *, found_version: int | None) -> None:
        super().__init__(message)
        self.found_version = found_version


class BulkError(PgdocError):
    """A write of a bulk failed, so nothing of the bulk was stored: handle the `__cause__`, the error of that write.

    Attributes:
        index: the number of the write, counted from 0 in the order of the calls.
        collection: the name of its collection.
        document_id: the id in the call; `None` if the call has a filter instead.
    """

    def __init__(self, message: str, *, index: int, collection: str, document_id: str | None) -> None:
        super().__init__(message)
        self.index = index
        self.collection = collection
        self.document_id = document_id


class UnreadableDocument(PgdocError):  # noqa: N818
    """The stored data can't be read in Python, which happens only if it was written by SQL: change it with SQL.

    It has a number of more than 4,300 digits, is nested too deep, or has a time out of range.
    """


class StreamError(PgdocError):
    """A stream can't be opened, or can't continue; each subclass names a reason."""


class StreamClosed(StreamError):  # noqa: N818
    """The stream is closed, or its collections no longer exist: open another with `watch(resume_after=...)`."""


class SlotBlocked(StreamError):  # noqa: N818
    """Open write transactions block the creation of the first replication slot: end them, or wait, and try again.

    Attributes:
        blockers: a `(pid, age in seconds)` for each transaction, oldest first. The pid of a prepared transaction is
            `None`. So is the age of another role's transaction, unless the role is a member of `pg_read_all_stats`.
    """

    resumable = True

    def __init__(self, message: str, *, blockers: tuple[tuple[int | None, float | None], ...] = ()) -> None:
        super().__init__(message)
        self.blockers = blockers


class ConsumerBusy(StreamError):  # noqa: N818
    """The consumer is open elsewhere: close it there, or open it with `wait=True` as a standby.

    Attributes:
        owner_pid: the pid of its session on the server; `None` if the session has just ended.
    """

    def __init__(self, message: str, *, owner_pid: int | None = None) -> None:
        super().__init__(message)
        self.owner_pid = owner_pid


class ConsumerLost(StreamError):  # noqa: N818
    """This stream no longer owns the consumer, or a later checkpoint is already stored: open the consumer again.

    Let the error leave the transaction's block, so that the transaction is rolled back.
    """


class NotAConsumer(StreamError):  # noqa: N818
    """`ack` and `checkpoint` need a stream with a consumer: open it with `watch(consumer=...)`."""


class HistoryLost(StreamError):  # noqa: N818
    """The server no longer keeps the WAL of the position: rebuild from the collections, with `snapshot=True`.

    Attributes:
        oldest_available: the oldest LSN that a stream can start at, as text; `None` if there is none.
    """

    def __init__(self, message: str, *, oldest_available: str | None = None) -> None:
        super().__init__(message)
        self.oldest_available = oldest_available


class InvalidResumeToken(StreamError, ValueError):  # noqa: N818
    """The text is not a token, or not a position of this cluster that can be resumed.

    Use a token on the server that issued it; after a restore or failover, start without one.
    """


class ReplicaIdentityChanged(StreamError):  # noqa: N818
    """A collection's table is no longer REPLICA IDENTITY FULL, so before images are missing: set it again."""


class ProtocolError(StreamError):
    """The server sent a message that the decoder does not understand: update pgdoc, or report the message.

    Attributes:
        offset: the byte of the message where decoding stopped.
    """

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset
