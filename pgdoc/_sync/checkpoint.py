# Written by .ci/twins.py from pgdoc/_async/checkpoint.py: change that file, and run it.
"""Stores a consumer's position in the transaction that stores an event's effect."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from pgdoc.consumers.takeover import lost_checkpoint
from pgdoc.database.errors import map_error
from pgdoc.database.rights import Caller
from pgdoc.errors import ConsumerLost, DatabaseError
from pgdoc.model.positions import Lsn
from pgdoc.runtime.primitives import sleep
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import Connection

    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.tokens import Mark

__all__ = ["OpenTransaction", "checkpoint", "fetch_in"]

_FOLLOW_S = 20.0
_POLL_S = 0.05


class OpenTransaction(Protocol):
    """What a checkpoint needs of a transaction; `store.transaction()` returns one."""

    @property
    def connection(self) -> Connection[Any]:
        """Its psycopg connection."""
        ...


def checkpoint(tx: OpenTransaction, consumer: Consumer, mark: Mark) -> None:
    """Advance the consumer's stored position to `mark`, if this process still owns the consumer.

    Raises:
        ConsumerLost: it does not, or `mark` is not beyond the stored position.
        DatabaseError: something in the table keeps the position from being stored.
    """
    position = [int(number) for number in mark.position]  # some may be Lsn
    consumer.asked.note(mark)
    deadline = time.monotonic() + _FOLLOW_S
    while True:
        try:
            if fetch_in(tx, statement("consumers", "checkpoint"), _params(consumer, mark, position)):
                return
            stored = fetch_in(tx, statement("consumers", "stored"), [consumer.name])
        except psycopg.Error as exc:  # also a serialization failure: the next attempt finds out who changed the row
            rights = f"So {Caller(tx.connection.info.user).to_have_consumers('SELECT, UPDATE')}"
            raise map_error(exc, f'consumer "{consumer.name}"', in_transaction=True, rights=rights) from exc
        is_elsewhere = bool(stored) and stored[0][3] != consumer.ids[1]
        if not is_elsewhere or consumer.claim is None or time.monotonic() > deadline:
            raise _refusal(consumer, mark, position, *stored)
        sleep(_POLL_S)  # until the consumer has followed to a server that was promoted


def _refusal(
    consumer: Consumer, mark: Mark, position: list[int], stored: tuple[Any, ...] | None = None
) -> ConsumerLost | DatabaseError:
    """Return why a checkpoint was not stored; `stored` is what the consumer's row has, if there is one."""
    name, unsure = consumer.name, consumer.asked.unsure.position
    if stored is not None and stored[3] != consumer.ids[1] and consumer.claim is not None:
        return ConsumerLost(
            f'consumer "{name}" reads timeline {consumer.ids[1]}, but this transaction is on timeline {stored[3]}: '
            "another server was promoted, or two servers take writes; roll this transaction back, and open the "
            "consumer again"
        )
    if stored is None or stored[:2] != consumer.claim:
        return ConsumerLost(
            f'consumer "{name}" was taken over by another process, or dropped: roll this transaction back, and open '
            "the consumer again"
        )
    if tuple(stored[2]) < unsure < mark.position:
        return lost_checkpoint(name, Lsn(unsure[0]), Lsn(stored[2][0]))
    if stored[2] < position:
        return DatabaseError(
            f'the checkpoint of consumer "{name}" was not stored: a trigger or a row policy of the table '
            "pgdoc.consumers drops it; remove that, and roll this transaction back"
        )
    at, asked = Lsn(stored[2][0]), Lsn(mark.position[0])
    return ConsumerLost(
        f'consumer "{name}" has a checkpoint at {at} already, and the event at {asked} is not beyond it: its effect is '
        "stored, roll this transaction back"
    )


def _params(consumer: Consumer, mark: Mark, position: list[int]) -> list[Any]:
    system_id, timeline, database_oid = consumer.ids
    epoch, holder = consumer.claim or (0, None)
    stored = [position, mark.text, str(system_id), timeline, database_oid]
    unsure = consumer.asked.unsure.position
    needed = [int(number) for number in unsure] if mark.position > unsure else []
    return [*stored, consumer.name, epoch, holder, position, needed, timeline]


def fetch_in(tx: OpenTransaction, query: str, params: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run a statement of a checkpoint inside a transaction of the user, and return its rows."""
    session = getattr(tx, "_session", None)
    with nullcontext(tx.connection) if session is None else session.lend("checkpoint") as connection:
        cursor = connection.execute(query.encode(), params, binary=True)
        return cursor.fetchall()
