"""What a stream asks of the consumer that feeds it; any thread may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgdoc.consumers.acknowledgements import ConsumerProgress
    from pgdoc.consumers.owned_slot import OwnedSlot
    from pgdoc.consumers.reported import Reading, Reported
    from pgdoc.consumers.sharing import HubShare
    from pgdoc.model.positions import Ids, RawPosition
    from pgdoc.model.tokens import Mark
    from pgdoc.replication.source import Cluster

__all__ = ["ConsumerFeed"]


class ConsumerFeed:
    """The part of `Consumer` that its stream uses as a `Feed`."""

    mode: str
    _cluster: Cluster
    _owned: OwnedSlot | None
    _progress: ConsumerProgress
    _reported: Reported
    _share: HubShare

    @property
    def ids(self) -> Ids:
        """What the stream's tokens carry."""
        return self._cluster.ids

    @property
    def live_position(self) -> RawPosition:
        """See `Feed`: the mailbox knows how far the stream has come, unless the hub feeds it."""
        return self._share.live_position

    @property
    def wal_end(self) -> int:
        """The highest LSN that the server has reported."""
        return self._reported.wal_end(self._owned)

    @property
    def reading(self) -> Reading:
        """See `Feed`."""
        return self._reported.reading(self._owned, self.mode)

    def acknowledge(self, mark: Mark) -> None:
        """Note that everything up to `mark` is acknowledged; the server learns it within a second."""
        self._progress.acknowledge(mark)

    def pass_over(self, given: Mark, mark: Mark) -> None:
        """Acknowledge up to `mark` once everything up to `given` is acknowledged."""
        self._progress.pass_over(given, mark)

    def ask(self) -> None:
        """See `Feed`."""
        self._share.ask()
        owned = self._owned
        if owned is not None:
            owned.ask()
            owned.wake()

    @property
    def is_called(self) -> bool:
        """Whether another session waits for the consumer's progress, see `calls`."""
        owned = self._owned
        return owned is not None and owned.is_called
