"""Makes the two halves of a stream of a group: what reads the log, and what delivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.relay.groups.delivery import GroupDelivery
from pgdoc.relay.groups.reading import GroupReading

if TYPE_CHECKING:
    from pgdoc.relay.inbox import AsyncInbox, Inbox
    from pgdoc.relay.remote_options import RemoteOptions
    from pgdoc.relay.targets import LogTarget

__all__ = ["join_group"]


def join_group(  # noqa: PLR0913 (what a group consists of)
    target: LogTarget,
    options: RemoteOptions,
    inbox: Inbox | AsyncInbox,
    *,
    group: str,
    lease_s: float,
    needs_claim: bool,
) -> tuple[GroupDelivery, GroupReading]:
    """Return both; nothing is connected yet."""
    reading = GroupReading(target, options, inbox, group=group, lease_s=lease_s)
    delivery = GroupDelivery(
        inbox,
        options.where,
        options.decode,
        valid_until=lambda: reading.membership.valid_until,
        needs_claim=needs_claim,
        covers=options.covers,
    )
    return delivery, reading
