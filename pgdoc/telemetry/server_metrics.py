"""The metrics that `pgdoc metrics` reports: what one database of a server says about its streams and consumers."""

from __future__ import annotations

from typing import Final

from pgdoc.telemetry.metric import Half, Metric, MetricKind

__all__ = ["SERVER_METRICS"]

_UNITS: Final = ("bytes", "seconds")


def _metric(name: str, help_text: str, *more_labels: str) -> Metric:
    is_counter = name.endswith("_total")
    unit = name.removesuffix("_total").rpartition("_")[2]
    return Metric(
        name,
        MetricKind.COUNTER if is_counter else MetricKind.GAUGE,
        unit if unit in _UNITS else "",
        ("database", *more_labels),
        help_text,
        Half.SERVER,
    )


def _of_consumer(name: str, help_text: str, *more_labels: str) -> Metric:
    return _metric(name, help_text, "schema", "consumer", *more_labels)


SERVER_METRICS: Final = (
    _metric("pgdoc_up", "1 if the database answered, 0 if not; then all that follows is absent, except scrape errors."),
    _metric("pgdoc_scrape_seconds", "How long it took to ask the database."),
    _metric(
        "pgdoc_scrape_ok",
        "1 if this part could be read: server, sessions (of other roles), slots, consumers or dead_letters. 0 if the "
        "role lacks a right or the statement failed; the log of `pgdoc metrics` says why. The metrics of that part are "
        "absent then.",
        "part",
    ),
    _metric(
        "pgdoc_scrape_errors_total",
        "How often `pgdoc metrics` could not read this part, or not connect (part connection), since it was started.",
        "part",
    ),
    _metric("pgdoc_in_recovery", "1 on a standby, 0 on a primary."),
    _metric("pgdoc_free_replication_slots", "How many more slots max_replication_slots allows."),
    _metric("pgdoc_free_walsenders", "How many more walsenders max_wal_senders allows. Each open stream needs one."),
    _metric(
        "pgdoc_max_slot_wal_keep_bytes", "max_slot_wal_keep_size; absent if that is -1, so that slots have no limit."
    ),
    _metric(
        "pgdoc_oldest_write_transaction_seconds",
        "How long the oldest open or prepared write transaction of any database has been open; 0 without one. While it "
        "is open, no slot releases WAL. Absent on a standby, and if the role may not see the sessions of others.",
    ),
    _metric("pgdoc_reader_slots", "The temporary slots through which streams of this database read at the moment."),
    _metric("pgdoc_reader_slots_retained_bytes", "The WAL that the furthest of them holds back."),
    _metric(
        "pgdoc_other_slots_retained_bytes",
        "The WAL that the furthest slot holds back that is not of pgdoc and this database, of the whole server.",
    ),
    _of_consumer(
        "pgdoc_consumer_oldest_unacked_seconds",
        "How long ago the oldest event committed that the consumer was given and has not acknowledged, as its owner "
        "stored it some seconds ago; 0 if there is none. If no process has the consumer open and none was left: how "
        "long ago one had. Absent on a standby.",
    ),
    _of_consumer(
        "pgdoc_consumer_owned", "1 if a process has the consumer open, else 0. Absent on a standby, which can't see it."
    ),
    _of_consumer(
        "pgdoc_consumer_owner_silent_seconds",
        "How long the process that has the consumer open has not used its session; it does so every 5 seconds. Absent "
        "without such a process, on a standby, and if the role may not see the sessions of others.",
    ),
    _of_consumer(
        "pgdoc_consumer_lag_bytes",
        "The WAL between the consumer's position and the end, of all databases. It grows up to 16 MiB while nothing "
        "happens in the consumer's collections.",
    ),
    _of_consumer(
        "pgdoc_consumer_unreadable_transactions",
        "Transactions that stop the consumer, because it can't read them and was not told to pass them.",
    ),
    _of_consumer(
        "pgdoc_consumer_recreated_total",
        "How often the consumer began again without the events before: its position was lost, or an operator said so.",
    ),
    _of_consumer("pgdoc_slot_retained_bytes", "The WAL that the consumer's slot holds back; 0 if the slot is invalid."),
    _of_consumer(
        "pgdoc_slot_safe_wal_bytes",
        "How much more WAL can be written before the slot may lose its own; below 0 it can happen at any checkpoint. "
        "Absent without max_slot_wal_keep_size, and if the slot is invalid.",
    ),
    _of_consumer(
        "pgdoc_slot_catalog_xmin_age",
        "For how many transactions the slot has kept VACUUM from removing dead rows of the system catalogs.",
    ),
    _of_consumer(
        "pgdoc_slot_invalid",
        "1 if the consumer can't read its slot any more, else 0 with the reason `none`. Other reasons: what "
        "pg_replication_slots has as invalidation_reason, or `lost` before PostgreSQL 17; `conflicting` on a standby; "
        "`gone` if there is no slot.",
        "reason",
    ),
    _of_consumer(
        "pgdoc_slot_failover", "1 if standbys copy the slot, else 0. Absent before PostgreSQL 17 and on a standby."
    ),
    _of_consumer(
        "pgdoc_slot_synced",
        "On a standby: 1 if this copy of a slot survives a promotion, else 0. Absent before PostgreSQL 17.",
    ),
    _of_consumer(
        "pgdoc_dead_letters",
        "The events that a handler of a worker could not process (`dead`), those that wait behind them (`parked`), and "
        "those that it is to try again (`due`). Absent without any. The schema is empty if the consumer was dropped.",
        "handler",
        "state",
    ),
    _of_consumer(
        "pgdoc_dead_letters_oldest_seconds",
        "How long ago the oldest of these was stored.",
        "handler",
        "state",
    ),
    _metric("pgdoc_history_bookmarks", "The bookmarks from which streams can resume; 0 if there is no history."),
    _metric("pgdoc_history_retained_bytes", "The WAL that these bookmarks hold back."),
    _metric("pgdoc_history_oldest_seconds", "How old the oldest of them is; absent if there is none."),
)
