"""Publishes events of the application's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.messages import message_error, message_params, message_statement

if TYPE_CHECKING:
    from pgdoc._async.session import AsyncSession
    from pgdoc.model.ids import DocumentId

__all__ = ["publish_message"]


async def publish_message(session: AsyncSession, topic: str, payload: Any, key: DocumentId | None) -> None:
    """Publish one event: see `AsyncTransaction.publish`."""
    session.check_open()
    params = message_params(topic, payload, key, session.codec.encoder)
    metadata = session.metadata_message()
    query = message_statement(with_metadata=metadata is not None)
    try:
        await session.fetch(query, params if metadata is None else [metadata, *params])
    except psycopg.Error as exc:
        raise message_error(exc, topic, session.caller, in_transaction=session.in_transaction) from exc
