"""What feeds a change stream: a subscription at the hub, or a durable consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pgdoc.changes.fanout import State
from pgdoc.model.positions import BEFORE_ALL, before_commits_at
from pgdoc.replication.reading import Reading

if TYPE_CHECKING:
    from pgdoc.changes.fanout import Subscription
    from pgdoc.model.positions import Ids, RawPosition
    from pgdoc.streams.hub import Hub


class Feed(Protocol):
    """What puts changes into a stream's mailbox.

    Attributes:
        begun_at: the position after which the stream began.
        recreated: how often it was recreated, with events lost.
    """

    @property
    def begun_at(self) -> RawPosition: ...  # noqa: D102 (see above)

    @property
    def recreated(self) -> int: ...  # noqa: D102

    @property
    def ids(self) -> Ids:
        """What the stream's tokens carry."""

    @property
    def mode(self) -> str:
        """One of the modes of `StreamStats`."""

    @property
    def live_position(self) -> RawPosition:
        """The position up to which everything wanted was put, if the mailbox does not know it; else zeros."""

    @property
    def wal_end(self) -> int:
        """The highest LSN that the server has reported."""

    @property
    def reading(self) -> Reading:
        """How far the reader that feeds the stream has come in time, as far as that is known."""

    def ask(self) -> None:
        """Have the reader ask the server at once how far its WAL goes, if it waits for more; for any thread."""

    def leave(self) -> None:
        """Stop feeding, and drop what was put."""

    def abandon(self) -> None:
        """Leave soon; takes no lock, because the garbage collector may call it while one is held."""


class HubFeed:
    """A subscription at the hub; `begin_at` sets `begun_at` if it is not known yet."""

    recreated = 0

    def __init__(self, hub: Hub, subscription: Subscription, begun_at: RawPosition = BEFORE_ALL) -> None:
        self.begun_at = begun_at
        self._hub = hub
        self._subscription = subscription

    def begin_at(self, lsn: int, timeline: int) -> bool:
        """See `Subscriptions.begin_at`."""
        begins = self._hub.subscriptions.begin_at(self._subscription, lsn, timeline)
        if begins:
            self.begun_at = before_commits_at(lsn)
        return begins

    @property
    def ids(self) -> Ids:
        """See `Feed`."""
        return self._hub.subscriptions.ids

    @property
    def mode(self) -> str:
        """See `Feed`."""
        if self._subscription.state is not State.LIVE:
            return "catching_up"
        return "reconnecting" if self._hub.is_reconnecting else "live"

    @property
    def live_position(self) -> RawPosition:
        """See `Feed`."""
        dispatched = self._hub.subscriptions.dispatched  # read before `state`: see `Fanout`
        return dispatched if self._subscription.state is State.LIVE else BEFORE_ALL

    @property
    def wal_end(self) -> int:
        """See `Feed`."""
        return self._hub.wal_end

    @property
    def reading(self) -> Reading:
        """See `Feed`; a catch-up reader's is not known."""
        reading = self._hub.reading
        return reading if self._subscription.state is State.LIVE else Reading(reading.clock_ahead_s)

    def ask(self) -> None:
        """See `Feed`; a catch-up reader asks by itself."""
        if self._subscription.state is State.LIVE:
            self._hub.ask()

    def leave(self) -> None:
        """See `Feed`."""
        self._hub.subscriptions.unsubscribe(self._subscription)

    def abandon(self) -> None:
        """See `Feed`."""
        self._hub.subscriptions.abandon(self._subscription)
