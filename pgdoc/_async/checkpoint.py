"""Storing a consumer's place in the transaction of the effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from pgdoc.database.errors import map_error
from pgdoc.errors import ConsumerLost
from pgdoc.model.positions import Lsn
from pgdoc.sql import statement

if TYPE_CHECKING:
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.tokens import Mark

__all__ = ["checkpoint"]


async def checkpoint(tx: AsyncTransaction, consumer: Consumer, mark: Mark) -> None:
    """Move the consumer's place on, while this process owns it.

    Raises:
        ConsumerLost: it does not, or the place does not move on.
    """
    system_id, timeline = consumer.ids
    numbers = [int(number) for number in mark.position]  # some may be Lsn
    params = [numbers, mark.text, str(system_id), timeline, consumer.name, consumer.epoch, numbers]
    try:
        if await tx.fetch(statement("consumers", "checkpoint").encode(), params):
            return
        stored = await tx.fetch(statement("consumers", "look").encode(), [consumer.name])
    except psycopg.Error as exc:  # also where the row was changed under this snapshot: who did, the next attempt tells
        raise map_error(exc, f'consumer "{consumer.name}"') from exc
    if stored and stored[0][0] == consumer.epoch:
        at, asked = Lsn(stored[0][1][0]), Lsn(mark.position[0])
        raise ConsumerLost(
            f'consumer "{consumer.name}" has a checkpoint at {at} already, the event of {asked} is not beyond it: '
            "its effect is there, roll this one back"
        )
    raise ConsumerLost(
        f'consumer "{consumer.name}" was taken over by another process, or dropped: roll back, and open it again'
    )
