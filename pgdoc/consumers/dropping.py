"""Drops a durable consumer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pgdoc.consumers.claims import still_open
from pgdoc.consumers.ownership import Ownership

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
    with closing(Ownership(source, name)) as ownership:
        if not ownership.own():
            raise still_open(name, ownership.owner_pid())
        dropped = (unused_for is None or ownership.was_unused_for(unused_for)) and ownership.remove()
        ownership.give_up()
        return dropped
