"""Turns the rows of `metrics.sql` into values of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["ServerSample", "samples_of_consumers", "samples_of_letters", "samples_of_server", "samples_of_slots"]


class ServerSample(NamedTuple):
    """A value of a metric, with its labels after the database."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


def samples_of_server(row: Any) -> Iterator[ServerSample]:
    """Yield what concerns the whole server."""
    yield ServerSample("pgdoc_scrape_ok", float(row.sees_sessions), ("sessions",))
    yield ServerSample("pgdoc_in_recovery", float(row.in_recovery))
    yield ServerSample("pgdoc_free_replication_slots", row.free_slots)
    yield ServerSample("pgdoc_free_walsenders", row.free_walsenders)
    if row.max_keep_bytes >= 0:
        yield ServerSample("pgdoc_max_slot_wal_keep_bytes", row.max_keep_bytes)
    if row.sees_sessions and not row.in_recovery:
        yield ServerSample("pgdoc_oldest_write_transaction_seconds", max(row.oldest_s or 0.0, 0.0))


def samples_of_consumers(rows: Iterable[Any], schema: str | None) -> Iterator[ServerSample]:
    """Yield the state of consumers, without their slots. A standby can't see the sessions of their owners."""
    for row in rows:
        if schema not in {None, row.schema}:
            continue
        labels = (row.schema, row.name)
        yield ServerSample("pgdoc_consumer_lag_bytes", row.lag_bytes, labels)
        yield ServerSample("pgdoc_consumer_unreadable_transactions", row.unreadable, labels)
        yield ServerSample("pgdoc_consumer_recreated_total", row.recreated, labels)
        if row.in_recovery:
            continue
        yield ServerSample("pgdoc_consumer_oldest_unacked_seconds", row.oldest_unacked_s, labels)
        yield ServerSample("pgdoc_consumer_owned", float(row.is_owned), labels)
        if row.owner_silent_s is not None:
            yield ServerSample("pgdoc_consumer_owner_silent_seconds", row.owner_silent_s, labels)
        if not row.has_slot:
            yield ServerSample("pgdoc_slot_invalid", 1.0, (*labels, "gone"))


def samples_of_slots(
    rows: Sequence[Any] | None, consumers: Iterable[Any], schema: str | None
) -> Iterator[ServerSample]:
    """Yield the state of all slots; `None` if it is not known."""
    if rows is None:
        return
    schemas = {row.name: row.schema for row in consumers}
    for row in rows:
        found = schemas.get(row.name, "") if row.kind == "consumer" else None
        if found is not None and (schema is None or found in {"", schema}):
            yield from _samples_of_slot(row, (found, row.name))
    readers = [row.retained_bytes for row in rows if row.kind == "reader"]
    yield ServerSample("pgdoc_reader_slots", len(readers))
    yield ServerSample("pgdoc_reader_slots_retained_bytes", max(readers, default=0))
    others = (row.retained_bytes for row in rows if row.kind == "other")
    yield ServerSample("pgdoc_other_slots_retained_bytes", max(others, default=0))
    # A bookmark that is still being copied has no confirmed LSN.
    bookmarks = [row for row in rows if row.kind == "bookmark" and row.reason == "none" and row.confirmed is not None]
    yield ServerSample("pgdoc_history_bookmarks", len(bookmarks))
    yield ServerSample("pgdoc_history_retained_bytes", max((row.retained_bytes for row in bookmarks), default=0))
    if bookmarks:
        oldest = min(bookmarks, key=lambda row: row.confirmed)
        yield ServerSample("pgdoc_history_oldest_seconds", max(oldest.now - int(oldest.made_at, 16), 0.0))


def samples_of_letters(rows: Iterable[Any], schema: str | None) -> Iterator[ServerSample]:
    """Yield how many dead letters each handler has, and how old they are."""
    for row in rows:
        if schema in {None, row.schema}:
            labels = (row.schema, row.consumer, row.handler, row.state)
            yield ServerSample("pgdoc_dead_letters", row.letters, labels)
            yield ServerSample("pgdoc_dead_letters_oldest_seconds", row.oldest_s, labels)


def _samples_of_slot(row: Any, labels: tuple[str, str]) -> Iterator[ServerSample]:
    yield ServerSample("pgdoc_slot_invalid", float(row.reason != "none"), (*labels, row.reason))
    yield ServerSample("pgdoc_slot_retained_bytes", row.retained_bytes, labels)
    if row.safe_bytes is not None:
        yield ServerSample("pgdoc_slot_safe_wal_bytes", row.safe_bytes, labels)
    if row.catalog_xmin_age is not None:
        yield ServerSample("pgdoc_slot_catalog_xmin_age", row.catalog_xmin_age, labels)
    if row.in_recovery and row.is_synced is not None:
        yield ServerSample("pgdoc_slot_synced", float(row.is_synced), labels)
    if not row.in_recovery and row.is_failover is not None:
        yield ServerSample("pgdoc_slot_failover", float(row.is_failover), labels)
