"""What a webhook relay does, and what its check finds."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgdoc.workers.findings import passed, refused, warned

if TYPE_CHECKING:
    from pgdoc.relay.answers import Answer
    from pgdoc.relay.webhook_requests import Endpoint
    from pgdoc.workers.findings import WorkerFinding

__all__ = ["WebhookCounts", "WebhookStatus", "answer_finding", "endpoint_finding", "silence_finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookStatus:
    """What a webhook relay does, and what it has done in this process.

    Attributes:
        consumer: the name of its consumer.
        url: of the receiver, without password and query.
        state: as that of a worker's handler: `closed`, `standby`, `idle`, `running`, `backing_off` between two
            attempts, or `waiting_for_server`. Also `throttled`, while the receiver wants nothing, and `gone`, if it
            wants nothing any more.
        waiting: how many events this process has buffered.
        delivered: how many events the receiver has taken.
        attempts: how many requests were sent.
        failures: how many of them failed.
        dead: how many events became dead letters.
        parked: how many events were parked behind those.
        throttled_s: for how many seconds more the receiver wants nothing; 0 if it does not say so.
        last_failure: what the last failed request met, as text; `None` if none failed.
    """

    consumer: str
    url: str
    state: str
    waiting: int
    delivered: int
    attempts: int
    failures: int
    dead: int
    parked: int
    throttled_s: float
    last_failure: str | None


class WebhookCounts:
    """Counts of this process; several threads may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.attempts = self.failures = self.delivered = 0
        self.last_failure: str | None = None

    def begin(self) -> None:
        """Count a request."""
        with self._lock:
            self.attempts += 1

    def deliver(self) -> None:
        """Count an event that the receiver has taken."""
        with self._lock:
            self.delivered += 1

    def fail(self, said: str) -> None:
        """Count a failure, and keep what it met."""
        with self._lock:
            self.failures += 1
            self.last_failure = said


def endpoint_finding(endpoint: Endpoint, consumer: str) -> WorkerFinding:
    """Return whether what is sent is protected on its way."""
    if not endpoint.is_plain:
        return passed("webhook-url", f"events are sent to {endpoint.shown}", consumer)
    text = f"{endpoint.shown} is not HTTPS: others can read the events on their way; the signature hides nothing"
    return warned("webhook-plain", text, consumer)


def answer_finding(endpoint: Endpoint, answer: Answer, consumer: str) -> WorkerFinding:
    """Return that the receiver can be reached: any answer to the request OPTIONS shows it."""
    return passed("webhook-receiver", f"{endpoint.shown} can be reached: {answer.text}", consumer)


def silence_finding(endpoint: Endpoint, said: str, consumer: str) -> WorkerFinding:
    """Return that the receiver can't be reached. The relay would try again, so it can run."""
    return refused("webhook-receiver", f"{endpoint.shown} can't be reached: {said}", consumer)
