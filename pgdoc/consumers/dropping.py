"""Drops a durable consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.consumers.ownership import Ownership
from pgdoc.errors import ConsumerBusy

if TYPE_CHECKING:
    from datetime import timedelta

    from pgdoc.replication.source import Source

__all__ = ["drop_consumer"]


def drop_consumer(source: Source, name: str, unused_for: timedelta | None = None) -> bool:
    """Drop a consumer; return whether it was dropped.

    With `unused_for`, only if no process has had it open for so long. That is checked under the claim: a process that
    opens the consumer meanwhile is seen, or waits for the end of the claim.

    Raises:
        ConsumerBusy: a process has it open, or a transaction with a checkpoint of it is open.
    """
    ownership = Ownership(source, name)
    try:
        if not ownership.own():
            pid = ownership.owner_pid()
            raise ConsumerBusy(f'consumer "{name}" is open (its session has pid {pid}): close it first', owner_pid=pid)
        dropped = (unused_for is None or ownership.was_unused_for(unused_for)) and ownership.remove()
        ownership.give_up()
        return dropped
    finally:
        ownership.close()
