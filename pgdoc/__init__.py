"""A document store on PostgreSQL whose changes can be watched: see `Store` and `AsyncStore`."""

from pgdoc._async.bulk import AsyncBulk
from pgdoc._async.bulk_collection import AsyncBulkCollection
from pgdoc._async.collection import AsyncCollection
from pgdoc._async.indexes import Index, IndexProgress
from pgdoc._async.live import AsyncLiveQuery
from pgdoc._async.live_aggregates import AsyncLiveAggregate
from pgdoc._async.log_groups import async_drop_log_group, async_log_groups
from pgdoc._async.mirror import AsyncMirror
from pgdoc._async.relay import AsyncRelay
from pgdoc._async.remote_stream import AsyncRemoteStream
from pgdoc._async.store import AsyncStore
from pgdoc._async.stream import AsyncChangeStream
from pgdoc._async.transaction import AsyncTransaction
from pgdoc._async.webhook_relay import AsyncWebhookRelay
from pgdoc._async.worker import AsyncWorker
from pgdoc._sync.bulk import Bulk
from pgdoc._sync.bulk_collection import BulkCollection
from pgdoc._sync.collection import Collection
from pgdoc._sync.live import LiveQuery
from pgdoc._sync.live_aggregates import LiveAggregate
from pgdoc._sync.log_groups import drop_log_group, log_groups
from pgdoc._sync.mirror import Mirror
from pgdoc._sync.relay import Relay
from pgdoc._sync.remote_stream import RemoteStream
from pgdoc._sync.store import Store
from pgdoc._sync.stream import ChangeStream
from pgdoc._sync.transaction import Transaction
from pgdoc._sync.webhook_relay import WebhookRelay
from pgdoc._sync.worker import Worker
from pgdoc.changes.events import ChangeEvent, EventType, UpdateDescription
from pgdoc.crud.bulk_results import BulkResult
from pgdoc.crud.write_count import WriteCount
from pgdoc.errors import *  # noqa: F403 (its __all__ is the tree)
from pgdoc.errors import __all__ as _errors
from pgdoc.errors.documents import BulkFailure
from pgdoc.live.aggregates import Groups, LiveAggregateChange
from pgdoc.live.changes import LiveChange, LiveChangeKind
from pgdoc.model.documents import Document
from pgdoc.model.ids import new_id
from pgdoc.model.metadata import metadata
from pgdoc.model.positions import Lsn
from pgdoc.model.raw_json import RawJson
from pgdoc.model.tokens import ResumeToken
from pgdoc.model.watched_tables import LockHolder, Refusal, TableCheck, WatchedTable
from pgdoc.relay.figures import RelayStatus
from pgdoc.relay.groups.status import GroupMember, GroupPartition, GroupStatus
from pgdoc.relay.webhook_status import WebhookStatus
from pgdoc.streams.status import ConsumerStatus, History, Status, StreamStats
from pgdoc.workers.dead_letters import DeadLetter
from pgdoc.workers.figures import HandlerStatus
from pgdoc.workers.findings import WorkerFinding

__all__ = [  # noqa: PLE0604 (the errors' names come from their own list)
    "AsyncBulk",
    "AsyncBulkCollection",
    "AsyncChangeStream",
    "AsyncCollection",
    "AsyncLiveAggregate",
    "AsyncLiveQuery",
    "AsyncMirror",
    "AsyncRelay",
    "AsyncRemoteStream",
    "AsyncStore",
    "AsyncTransaction",
    "AsyncWebhookRelay",
    "AsyncWorker",
    "Bulk",
    "BulkCollection",
    "BulkFailure",
    "BulkResult",
    "ChangeEvent",
    "ChangeStream",
    "Collection",
    "ConsumerStatus",
    "DeadLetter",
    "Document",
    "EventType",
    "GroupMember",
    "GroupPartition",
    "GroupStatus",
    "Groups",
    "HandlerStatus",
    "History",
    "Index",
    "IndexProgress",
    "LiveAggregate",
    "LiveAggregateChange",
    "LiveChange",
    "LiveChangeKind",
    "LiveQuery",
    "LockHolder",
    "Lsn",
    "Mirror",
    "RawJson",
    "Refusal",
    "Relay",
    "RelayStatus",
    "RemoteStream",
    "ResumeToken",
    "Status",
    "Store",
    "StreamStats",
    "TableCheck",
    "Transaction",
    "UpdateDescription",
    "WatchedTable",
    "WebhookRelay",
    "WebhookStatus",
    "Worker",
    "WorkerFinding",
    "WriteCount",
    "async_drop_log_group",
    "async_log_groups",
    "drop_log_group",
    "log_groups",
    "metadata",
    "new_id",
    *_errors,
]
