"""Says why a consumer of a worker ended: loudly once for each outage, and once for each other reason."""

from __future__ import annotations

import logging

from pgdoc.errors import ConsumerLost, PgdocError

__all__ = ["Endings"]

logger = logging.getLogger("pgdoc.worker")


class Endings:
    """What ended one consumer since it was last open.

    Args:
        name: of the consumer.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: set[type[PgdocError] | None] = set()

    def begin(self) -> None:
        """Note that the consumer is open: whatever ends it now is news."""
        self._told.clear()

    def note(self, error: PgdocError) -> None:
        """Log what ended the consumer, or kept it from being opened."""
        is_awaited = error.resumable or isinstance(error, ConsumerLost)
        reason = None if is_awaited else type(error)
        text = f"{type(error).__name__}: {error}"
        if reason in self._told:
            logger.info('consumer "%s" of the worker is still not open: %s', self._name, text)
        elif is_awaited:
            logger.warning('consumer "%s" of the worker is not open, and is tried again: %s', self._name, text)
        else:
            logger.error('consumer "%s" of the worker is not open, and is tried again: %s', self._name, text)
        self._told.add(reason)
