"""What a relay does: read by any thread."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RelayFigures", "RelayStatus"]


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What a relay does, and what it has done in this process.

    Attributes:
        consumer: the name of its consumer.
        log: the URL of its log, without user, password and options.
        state: `closed`; `standby`, while another process has the consumer; `opening`; `relaying`; `log_full`;
            `waiting_for_log`; or `waiting_for_server`.
        sent: how many messages it has sent.
        stored: how many of them the engine has acknowledged.
        waiting: how many wait for their acknowledgement.
        sequence: of the last entry of the log that the engine has acknowledged.
        token: of its event, as text; `None` if this process has stored none.
        interruptions: how often the log had to be opened again.
        error: what interrupted it last, as text; `None` if nothing has since it went on.
    """

    consumer: str
    log: str
    state: str
    sent: int
    stored: int
    waiting: int
    sequence: int
    token: str | None
    interruptions: int
    error: str | None


class RelayFigures:
    """The counts of one relay; its own thread or task writes, and any thread reads."""

    def __init__(self, consumer: str, log: str) -> None:
        self.consumer = consumer
        self.log = log
        self.state = "closed"
        self.sent = self.stored = self.sequence = self.interruptions = 0
        self.token: str | None = None
        self.error: str | None = None

    def status(self) -> RelayStatus:
        """Return the figures."""
        stored = self.stored  # first: it never exceeds what was sent
        return RelayStatus(
            consumer=self.consumer,
            log=self.log,
            state=self.state,
            sent=self.sent,
            stored=stored,
            waiting=max(0, self.sent - stored),
            sequence=self.sequence,
            token=self.token,
            interruptions=self.interruptions,
            error=self.error,
        )
