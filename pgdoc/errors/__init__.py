"""Every error that pgdoc raises.

::

    PgdocError
    ├── StoreClosed                      the store is closed
    ├── MissingExtra                     a package of an extra is not installed; also an ImportError
    ├── TransactionClosed                the transaction or bulk has not begun, or has ended
    ├── WebhookGone                      the receiver of a webhook wants no more events
    ├── ServerError                      a problem with the server, or with the connection to it
    │   ├── ServerUnreachable            no connection, or it was lost (resumable)
    │   │   ├── TransactionLost          it was lost in a transaction, of which nothing is stored (retryable)
    │   │   └── CommitUnknown            it was lost during a commit, which may have happened
    │   ├── PoolExhausted                all connections of the store are in use (resumable, retryable,
    │   │                                `holders`)
    │   ├── UnsupportedServer            older than PostgreSQL 15, or not UTF-8
    │   ├── ServerNotFound               `LocalServer` found no PostgreSQL on this machine
    │   ├── ServerStartFailed            `LocalServer` did not start, or is not running
    │   ├── ReplicationUnavailable       documents work on this server, streams do not
    │   │   ├── WalLevelTooLow           wal_level is not logical
    │   │   ├── PluginMissing            the output plugin is not installed on the server
    │   │   ├── PluginNotAllowed         output_plugin_libraries does not list the output plugin
    │   │   ├── PublicationIncomplete    the publication for pgoutput lacks something
    │   │   ├── ReplicationNotPermitted  the role lacks REPLICATION, or pg_hba.conf refuses it
    │   │   ├── SlotsExhausted           no free replication slot or walsender (resumable, retryable)
    │   │   └── DirectRouteNeeded        the connection goes through a pooler
    │   ├── UpgradePrepared              the database takes no writes until an upgrade of PostgreSQL is finished
    │   ├── UpgradeRefused               `pgdoc upgrade` would lose something (`findings`)
    │   ├── TableRefused                 a table can't be watched (`table`, `reason`, `cure`)
    │   └── DatabaseError                any other error of the server (`sqlstate`)
    │       └── SerializationFailure     another transaction came in between (retryable)
    ├── CatalogError
    │   ├── CatalogMissing               the database has no pgdoc catalog
    │   ├── CatalogNotTrusted            a superuser connects, but another role owns the catalog
    │   ├── RegistryUnbound              the catalog belongs to another database: this one was copied or restored
    │   └── CatalogVersionMismatch       the catalog is older or newer than pgdoc (`found_version`, `needed_version`)
    ├── InvalidInput                     an argument is not valid; also a ValueError (`path`)
    │   ├── InvalidName                  of a collection, schema, index or consumer
    │   ├── InvalidDocument              an id, data or metadata that can't be stored
    │   │   ├── DocumentTooLarge         more JSON text than allowed (`document_id`, `size`, `max_size`)
    │   │   └── SchemaViolation          not what the collection's JSON Schema allows (`document_id`, `rule`, `value`)
    │   ├── InvalidEvent                 not the JSON of an event
    │   ├── InvalidFilter                (`operator`)
    │   └── InvalidUpdate                (`operator`)
    ├── CollectionNotFound               the collection does not exist, or a table is none
    ├── NotACollection                   what only documents of collections have; also an AttributeError
    ├── DuplicateDocument                the id, or a unique value, already exists (`document_id`, `index`, `paths`,
    │                                    `values`)
    ├── VersionConflict                  the document is not at version `if_version` (`found_version`)
    ├── BulkError                        a write of a bulk failed (`index`, `collection`, `document_id`)
    ├── BulkIncomplete                   writes of an unordered bulk failed (`failures`), the others are stored
    ├── UnreadableDocument               stored data that can't be read (`collection`, `document_id`)
    │   └── InvalidModel                 not what the collection's model allows (`path`, `model`)
    │       └── ModelViolation           the same of data to be stored; also an InvalidDocument
    ├── LogError                         a problem with the log of a relay
    │   ├── LogUnreachable               its engine does not answer (resumable)
    │   ├── LogFull                      it takes no more entries (resumable)
    │   ├── LogRefused                   not one that the relay may write, or the stream can read (`reason`)
    │   └── LogGap                       it lacks events that PostgreSQL no longer keeps (`after`, `until`)
    └── StreamError
        ├── StreamClosed                 the stream is closed
        ├── SlotBlocked                  open write transactions block the first slot (resumable, retryable,
        │                                `blockers`)
        ├── HistoryLost                  the server no longer keeps the position (`oldest_available`)
        ├── InvalidResumeToken           not a position of this cluster; also a ValueError
        ├── ConsumerNotFound             the consumer does not exist
        ├── ConsumerBusy                 the consumer is open elsewhere (`owner_pid`)
        ├── ConsumerLost                 the consumer was taken over or dropped
        ├── WaitTimeout                  a consumer or stream has not passed an LSN in time; also a TimeoutError
        │                                (`reached`, `owner_pid`)
        ├── NotAConsumer                 `ack` and `checkpoint` need a stream with a consumer
        ├── UnreadableChange             the server can't send a change (`commit_lsn`, `collections`, `position`)
        ├── ReplicaIdentityChanged       a collection's table is no longer REPLICA IDENTITY FULL
        └── ProtocolError                a message that the decoder does not understand (`offset`)

Each message names the object, the finding and the next step. An error that comes from psycopg has psycopg's exception
as its ``__cause__``. The class attribute ``resumable`` says whether opening the same stream again from its
``resume_token`` can succeed without anyone changing anything; ``retryable`` says the same of running the failed call,
or its whole transaction, again.
"""

from __future__ import annotations

from pgdoc.errors.base import (
    MissingExtra,
    PgdocError,
    StoreClosed,
    TransactionClosed,
)
from pgdoc.errors.documents import (
    BulkError,
    BulkIncomplete,
    CollectionNotFound,
    DocumentTooLarge,
    DuplicateDocument,
    InvalidDocument,
    InvalidEvent,
    InvalidFilter,
    InvalidInput,
    InvalidModel,
    InvalidName,
    InvalidUpdate,
    ModelViolation,
    NotACollection,
    SchemaViolation,
    UnreadableDocument,
    VersionConflict,
)
from pgdoc.errors.relays import LogError, LogFull, LogGap, LogRefused, LogUnreachable
from pgdoc.errors.server import (
    CatalogError,
    CatalogMissing,
    CatalogNotTrusted,
    CatalogVersionMismatch,
    CommitUnknown,
    DatabaseError,
    DirectRouteNeeded,
    PluginMissing,
    PluginNotAllowed,
    PoolExhausted,
    PublicationIncomplete,
    RegistryUnbound,
    ReplicationNotPermitted,
    ReplicationUnavailable,
    SerializationFailure,
    ServerError,
    ServerNotFound,
    ServerStartFailed,
    ServerUnreachable,
    SlotsExhausted,
    TableRefused,
    TransactionLost,
    UnsupportedServer,
    UpgradePrepared,
    UpgradeRefused,
    WalLevelTooLow,
)
from pgdoc.errors.streams import (
    ConsumerBusy,
    ConsumerLost,
    ConsumerNotFound,
    HistoryLost,
    InvalidResumeToken,
    NotAConsumer,
    ProtocolError,
    ReplicaIdentityChanged,
    SlotBlocked,
    StreamClosed,
    StreamError,
    UnreadableChange,
    WaitTimeout,
)
from pgdoc.errors.webhooks import WebhookGone

__all__ = [
    "BulkError",
    "BulkIncomplete",
    "CatalogError",
    "CatalogMissing",
    "CatalogNotTrusted",
    "CatalogVersionMismatch",
    "CollectionNotFound",
    "CommitUnknown",
    "ConsumerBusy",
    "ConsumerLost",
    "ConsumerNotFound",
    "DatabaseError",
    "DirectRouteNeeded",
    "DocumentTooLarge",
    "DuplicateDocument",
    "HistoryLost",
    "InvalidDocument",
    "InvalidEvent",
    "InvalidFilter",
    "InvalidInput",
    "InvalidModel",
    "InvalidName",
    "InvalidResumeToken",
    "InvalidUpdate",
    "LogError",
    "LogFull",
    "LogGap",
    "LogRefused",
    "LogUnreachable",
    "MissingExtra",
    "ModelViolation",
    "NotACollection",
    "NotAConsumer",
    "PgdocError",
    "PluginMissing",
    "PluginNotAllowed",
    "PoolExhausted",
    "ProtocolError",
    "PublicationIncomplete",
    "RegistryUnbound",
    "ReplicaIdentityChanged",
    "ReplicationNotPermitted",
    "ReplicationUnavailable",
    "SchemaViolation",
    "SerializationFailure",
    "ServerError",
    "ServerNotFound",
    "ServerStartFailed",
    "ServerUnreachable",
    "SlotBlocked",
    "SlotsExhausted",
    "StoreClosed",
    "StreamClosed",
    "StreamError",
    "TableRefused",
    "TransactionClosed",
    "TransactionLost",
    "UnreadableChange",
    "UnreadableDocument",
    "UnsupportedServer",
    "UpgradePrepared",
    "UpgradeRefused",
    "VersionConflict",
    "WaitTimeout",
    "WalLevelTooLow",
    "WebhookGone",
]
