"""Logs that tests write themselves, without PostgreSQL: events of one collection with tokens of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import nats

from pgdoc.relay.config import LogConfig
from pgdoc.relay.engines import open_records, open_writer
from pgdoc.relay.messages import LogMessage, parts_of
from pgdoc.relay.partitions import EVERY, partition_of
from pgdoc.relay.targets import LogTarget

if TYPE_CHECKING:
    from collections.abc import Iterable

IDS: Final = "5.1.6"
PARTITIONS: Final = 8


def token_of(number: int) -> str:
    """Return the token of the event of this number."""
    lsn = 1000 + 10 * number
    return f"0/{lsn:X}.0/{lsn - 5:X}.1.0.{IDS}"


def body_of(number: int, collection: str = "orders", document_id: str | None = None, pad: str = "") -> bytes:
    """Return the JSON of an insert."""
    name = document_id or f"o-{number % 100}"
    document = (
        f'{{"id":"{name}","data":{{"n":{number},"pad":"{pad}"}},"version":1,'
        '"created_at":"2026-01-01T00:00:00+00:00","updated_at":"2026-01-01T00:00:00+00:00"}'
    )
    return (
        f'{{"event_type":"insert","collection":"{collection}","document_id":"{name}","full_document":{document},'
        f'"full_document_before_change":null,"update_description":null,"resume_token":"{token_of(number)}",'
        '"timestamp":"2026-01-01T00:00:00+00:00","transaction_id":7,"metadata":{},"renamed_to":null}'
    ).encode()


def truncate_of(number: int, collection: str = "orders") -> bytes:
    """Return the JSON of a truncate, an event of the whole collection."""
    return (
        f'{{"event_type":"truncate","collection":"{collection}","document_id":null,"full_document":null,'
        f'"full_document_before_change":null,"update_description":null,"resume_token":"{token_of(number)}",'
        '"timestamp":"2026-01-01T00:00:00+00:00","transaction_id":7,"metadata":{},"renamed_to":null}'
    ).encode()


def message_of(number: int, collection: str = "orders", pad: str = "") -> LogMessage:
    """Return the message of an insert."""
    name = f"o-{number % 100}"
    body = body_of(number, collection, pad=pad)
    return LogMessage(partition_of(name, PARTITIONS), collection, name, "insert", token_of(number), body)


def truncate_message(number: int, collection: str = "orders") -> LogMessage:
    """Return the message of a truncate."""
    return LogMessage(EVERY, collection, None, "truncate", token_of(number), truncate_of(number, collection))


async def write(
    url: str,
    messages: Iterable[LogMessage],
    *,
    format: str = "pgdoc",  # noqa: A002 (the name in the contract)
    begun_at: str = "0/100.5.1.6",
    system_id: int = 5,
    partitions: int = PARTITIONS,
) -> None:
    """Append messages to a log, as a relay does."""
    writer = open_writer(LogTarget.parse(url))
    try:
        await writer.open(
            LogConfig(
                system_id=system_id,
                database_oid=6,
                selection="all",
                format=format,
                partitions=partitions,
                begun_at=begun_at,
            )
        )
        window = [part for message in messages for part in parts_of(message, writer.limit)]
        for at in range(0, len(window), 500):
            await writer.send(window[at : at + 500])
    finally:
        await writer.close()


def fill(url: str, numbers: Iterable[int], collection: str = "orders") -> None:
    """Append inserts to a log."""
    asyncio.run(write(url, [message_of(number, collection) for number in numbers]))


def append(url: str, messages: Iterable[LogMessage], **config: Any) -> None:
    """Append messages to a log."""
    asyncio.run(write(url, messages, **config))


def forget(url: str, before: int) -> None:
    """Let a JetStream stream forget the entries before a sequence."""
    asyncio.run(_forget(url, before))


async def _forget(url: str, before: int) -> None:
    server, _, stream = url.rpartition("/")
    client = await nats.connect(server)
    try:
        await client.jetstream().purge_stream(stream, seq=before)
    finally:
        await client.close()


def delete(url: str) -> None:
    """Delete a JetStream stream."""
    asyncio.run(_delete(url))


async def _delete(url: str) -> None:
    server, _, stream = url.rpartition("/")
    client = await nats.connect(server)
    try:
        await client.jetstream().delete_stream(stream)
    finally:
        await client.close()


def records_of(url: str, group: str) -> list[str]:
    """Return the keys of the records of a group."""
    return asyncio.run(_records_of(url, group, deletes=False))


def write_records(url: str, records: dict[str, bytes]) -> None:
    """Write records of groups that do not exist."""
    asyncio.run(_write_records(url, records))


async def _write_records(url: str, values: dict[str, bytes]) -> None:
    records = open_records(LogTarget.parse(url))
    await records.open()
    try:
        for key, value in values.items():
            assert await records.write(key, value, 0)
    finally:
        await records.close()


def delete_records(url: str, group: str) -> int:
    """Delete the records of a group; return how many there were."""
    return len(asyncio.run(_records_of(url, group, deletes=True)))


async def _records_of(url: str, group: str, *, deletes: bool) -> list[str]:
    records = open_records(LogTarget.parse(url))
    await records.open()
    try:
        found = await records.read(f"{group}.")
        for key, record in found.items() if deletes else ():
            await records.delete(key, record.revision)
        return list(found)
    finally:
        await records.close()
