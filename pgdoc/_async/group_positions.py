"""Stores how far the effects of a group's events are, in the transactions that store the effects."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._async.checkpoint import fetch_in
from pgdoc.database.errors import map_error
from pgdoc.database.rights import Caller
from pgdoc.errors import ConsumerLost, PgdocError
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.finding import LogPosition
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgdoc._async.checkpoint import AsyncOpenTransaction
    from pgdoc._async.store import AsyncStore
    from pgdoc.relay.groups.partition import OwnedPartition

__all__ = ["AsyncGroupPositions"]

logger = logging.getLogger("pgdoc.remote")


class AsyncGroupPositions:
    """The positions of one group in the database of a store.

    Args:
        log: the engine and the name of the log.
    """

    def __init__(self, store: AsyncStore, log: str, group: str) -> None:
        self._store, self._log, self._group = store, log, group

    async def claim(self, partition: OwnedPartition) -> None:
        """Let former owners store no more, and let the partition's events begin after those with a stored effect."""
        async with self._store.transaction() as tx:
            rows = await self._fetch(tx, "claim", [self._log, self._group, partition.number, partition.epoch])
            later = [] if rows else await self._fetch(tx, "stored", [self._log, self._group, partition.number])
        if not rows:
            for epoch, *_ in later:
                partition.outdo(epoch)
            partition.lose()  # another member has claimed it since
            return
        token: str = rows[0][0]
        partition.skip_to = ResumeToken.parse(token) if token else None
        partition.is_claimed = True

    async def confirm(self, partitions: Iterable[OwnedPartition]) -> None:
        """Let what checkpoints have committed count as acknowledged: the group's records then say so, too.

        So a new owner does not read the log from long ago. Nothing depends on it, so a server that is away is ignored.
        """
        try:
            async with self._store.transaction() as tx:
                rows = await self._fetch(tx, "committed", [self._log, self._group])
        except PgdocError as exc:
            logger.info("which checkpoints have committed could not be found out: %s", exc)
            return
        found = {(number, epoch): LogPosition(*place) for number, epoch, *place in rows}
        for partition in partitions:
            position = found.get((partition.number, partition.epoch))
            if position is not None:
                partition.confirm(position)

    async def checkpoint(self, tx: AsyncOpenTransaction, positions: Mapping[OwnedPartition, LogPosition]) -> None:
        """Store positions inside a transaction.

        Raises:
            ConsumerLost: another member owns one of the partitions, or the effect is stored already.
        """
        for partition, (sequence, token, identity) in sorted(positions.items(), key=lambda each: each[0].number):
            values = {"identity": identity, "sequence": sequence, "token": token, "epoch": partition.epoch}
            values |= {"log": self._log, "group": self._group, "partition": partition.number}
            if not await self._fetch(tx, "checkpoint", values):
                raise await self._refusal(tx, partition, token)

    async def _refusal(self, tx: AsyncOpenTransaction, partition: OwnedPartition, token: str) -> ConsumerLost:
        rows = await self._fetch(tx, "stored", [self._log, self._group, partition.number])
        subject = f'partition {partition.number} of group "{self._group}"'
        if rows and rows[0][0] == partition.epoch:
            return ConsumerLost(
                f"{subject} is at {rows[0][1]} already, and the event at {token} is not beyond it: its effect is "
                "stored, roll this transaction back"
            )
        if rows and rows[0][0] > partition.epoch:
            partition.lose()
            return ConsumerLost(
                f"{subject} was taken over by another member, which gets the event again: roll this transaction back, "
                "and go on with the next event"
            )
        return ConsumerLost(
            f"{subject} has no position in the database of this transaction: give the stream the store whose database "
            "has the effects, or restore the table pgdoc.group_positions; roll this transaction back"
        )

    async def _fetch(
        self, tx: AsyncOpenTransaction, name: str, params: Sequence[Any] | Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        try:
            return await fetch_in(tx, statement("groups", name), params)
        except psycopg.Error as exc:
            rights = Caller(tx.connection.info.user).to_have_groups("SELECT, INSERT, UPDATE")
            raise map_error(exc, f'group "{self._group}"', in_transaction=True, rights=rights) from exc
