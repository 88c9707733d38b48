"""Drops a durable consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.consumers.ownership import Ownership
from pgdoc.errors import ConsumerBusy

if TYPE_CHECKING:
    from pgdoc.replication.source import Source

__all__ = ["drop_consumer"]


def drop_consumer(source: Source, name: str) -> bool:
    """Drop a consumer; return whether it existed.

    Raises:
        ConsumerBusy: a process has it open, or a transaction with a checkpoint of it is open.
    """
    ownership = Ownership(source, name)
    try:
        if not ownership.own():
            pid = ownership.owner_pid()
            raise ConsumerBusy(f'consumer "{name}" is open (its session has pid {pid}): close it first', owner_pid=pid)
        dropped = ownership.remove()
        ownership.give_up()
        return dropped
    finally:
        ownership.close()
