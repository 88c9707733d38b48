"""The calls of a store about the dead letters of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.database.errors import map_error
from pgdoc.runtime.deadline import deadline_scope
from pgdoc.sql import statement
from pgdoc.workers.dead_letters import chosen_letters, letter_of, listed_letters

if TYPE_CHECKING:
    from pgdoc._async.connections import AsyncConnections
    from pgdoc.workers.dead_letters import DeadLetter

__all__ = ["AsyncDeadLetterCalls"]


class AsyncDeadLetterCalls:
    """The dead letters of workers; the store inherits these calls."""

    _connections: AsyncConnections

    async def dead_letters(  # noqa: PLR0913 (the filters)
        self,
        *,
        consumer: str | None = None,
        handler: str | None = None,
        state: str | None = None,
        collection: str | None = None,
        document_id: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Return the events that handlers of workers could not process, in the order of their ids.

        Args:
            consumer: only those of this consumer, which need not exist any more.
            handler: only those of the handlers of this name.
            state: only those in this state: `dead`, `parked` or `due`.
            collection: only those of this collection or table.
            document_id: only those of the documents with this id.
            after: only those with a higher id: that of the last one of the call before.
            limit: at most this many.

        Raises:
            InvalidInput: an argument is not valid.
            DatabaseError: the role may not read them.
        """
        filters = {
            "consumer": consumer,
            "handler": handler,
            "state": state,
            "collection": collection,
            "document_id": document_id,
        }
        rows = await self._of_letters("list", listed_letters(filters, after, limit), "SELECT")
        return [letter_of(row, self._connections.codec.decode) for row in rows]

    async def retry_dead_letters(
        self,
        *ids: int,
        consumer: str | None = None,
        handler: str | None = None,
        collection: str | None = None,
        document_id: str | None = None,
        everything: bool = False,
    ) -> int:
        """Mark dead letters as due, so that the worker that has their consumer tries them again.

        It tries those of one document in order, and removes a letter in the transaction of its effect. Letters that are
        parked behind these are due as well, unless another dead letter is before them.

        Args:
            *ids: the letters; those that do not exist, or are not `dead`, are passed over.
            consumer: instead of ids, all of this consumer.
            handler: all of the handlers of this name.
            collection: all of this collection or table.
            document_id: all of the documents with this id.
            everything: all there are.

        Returns:
            How many dead letters are due now.

        Raises:
            InvalidInput: an argument is not valid, or there are no ids and no filters, or both.
            DatabaseError: the role may not change them.
        """
        filters = {"consumer": consumer, "handler": handler, "collection": collection, "document_id": document_id}
        params = chosen_letters(ids, filters, everything=everything)
        ((count,),) = await self._of_letters("retry", params, "SELECT, UPDATE")
        return int(count)

    async def drop_dead_letters(  # noqa: PLR0913 (the filters)
        self,
        *ids: int,
        consumer: str | None = None,
        handler: str | None = None,
        state: str | None = None,
        collection: str | None = None,
        document_id: str | None = None,
        everything: bool = False,
    ) -> int:
        """Delete dead letters: their handler never processes these events.

        Letters that are parked behind these are due then, unless another dead letter is before them.

        Args:
            *ids: the letters; those that do not exist are passed over.
            consumer: instead of ids, all of this consumer, which need not exist any more.
            handler: all of the handlers of this name.
            state: all in this state: `dead`, `parked` or `due`.
            collection: all of this collection or table.
            document_id: all of the documents with this id.
            everything: all there are.

        Returns:
            How many were deleted.

        Raises:
            InvalidInput: an argument is not valid, or there are no ids and no filters, or both.
            DatabaseError: the role may not delete them.
        """
        filters = {
            "consumer": consumer,
            "handler": handler,
            "state": state,
            "collection": collection,
            "document_id": document_id,
        }
        params = chosen_letters(ids, filters, everything=everything)
        ((count,),) = await self._of_letters("drop", params, "SELECT, UPDATE, DELETE")
        return int(count)

    async def _of_letters(self, name: str, params: dict[str, Any], rights: str) -> list[tuple[Any, ...]]:
        try:
            with deadline_scope():
                return await self._connections.fetch(statement("dead_letters", name).encode(), params)
        except psycopg.Error as exc:
            advice = self._connections.caller.to_have_letters(rights)
            raise map_error(exc, "the dead letters", rights=advice) from exc
