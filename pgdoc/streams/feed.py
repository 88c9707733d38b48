"""What a change stream is fed by: the hub, or a consumer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pgdoc.changes.fanout import State
from pgdoc.model.positions import before_commits_at

if TYPE_CHECKING:
    from pgdoc.changes.fanout import Subscription
    from pgdoc.model.positions import RawPosition
    from pgdoc.streams.hub import Hub


class Feed(Protocol):
    """What puts changes into a stream's mailbox.

    Attributes:
        begun_at: the place behind which the stream began.
        recreated: how often it had to begin anew, and events were lost.
    """

    @property
    def begun_at(self) -> RawPosition: ...  # noqa: D102 (see above)

    @property
    def recreated(self) -> int: ...  # noqa: D102

    @property
    def ids(self) -> tuple[int, int]:
        """The cluster's system identifier and timeline."""

    @property
    def mode(self) -> str:
        """As `StreamStats` has it."""

    @property
    def live_place(self) -> RawPosition:
        """Up to where everything wanted was put, where the mailbox is not told of that."""

    @property
    def wal_end(self) -> int:
        """The highest LSN heard of."""

    def leave(self) -> None:
        """Put no more, and drop what was put."""

    def abandon(self) -> None:
        """Do so soon; for the garbage collector, which may run in the midst of any lock."""


class HubFeed:
    """A subscription at the hub.

    Args:
        hub: which reads for all streams of the store.
        subscription: the stream's.
        begun_at: the place behind which it began; `begin_at` says it where that is not known yet.
    """

    recreated = 0

    def __init__(self, hub: Hub, subscription: Subscription, begun_at: RawPosition = (0, 0, 0, 0)) -> None:
        self.begun_at = begun_at
        self._hub = hub
        self._subscription = subscription

    def begin_at(self, lsn: int) -> None:
        """Begin with the first transaction that commits at or after `lsn`."""
        self._hub.subscriptions.begin_at(self._subscription, lsn)
        self.begun_at = before_commits_at(lsn)

    @property
    def ids(self) -> tuple[int, int]:
        """The cluster's system identifier and timeline."""
        return self._hub.subscriptions.ids

    @property
    def mode(self) -> str:
        """As `StreamStats` has it."""
        if self._subscription.state is not State.LIVE:
            return "catching_up"
        return "reconnecting" if self._hub.is_reconnecting else "live"

    @property
    def live_place(self) -> RawPosition:
        """Up to where everything wanted was put."""
        dispatched = self._hub.subscriptions.dispatched  # asked first: see `Fanout`
        return dispatched if self._subscription.state is State.LIVE else (0, 0, 0, 0)

    @property
    def wal_end(self) -> int:
        """The highest LSN heard of."""
        return self._hub.wal_end

    def leave(self) -> None:
        """Put no more, and drop what was put."""
        self._hub.subscriptions.unsubscribe(self._subscription)

    def abandon(self) -> None:
        """Do so soon."""
        self._hub.subscriptions.abandon(self._subscription)
