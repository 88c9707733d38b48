"""Moves a reader to a copy of its slot that stands at the watermark.

That releases WAL while a reader could count as a synchronous standby, and so must confirm nothing: a temporary slot can
only be confirmed by its reader. It also releases the memory of a reader that has received a large frame. The old reader
stays until the new one reads, and keeps the WAL that the copy needs.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pgdoc.errors import PgdocError
from pgdoc.model.positions import Lsn
from pgdoc.replication.session import renew_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.replication.session import ReplicationSession
    from pgdoc.replication.source import Cluster, Source

__all__ = ["Renewal"]

logger = logging.getLogger("pgdoc.stream")

RENEW_BYTES = 64 << 20
"""A quiet reader moves on once its slot holds back this much WAL that it has read."""

_PAUSE_FACTOR = 20
_RETRY_S = 1.0


class Renewal:
    """Renews the sessions of one reading thread.

    The server decodes again from the start of the oldest open transaction, which can take long. So the thread spends at
    most a twentieth of its time on renewals.
    """

    def __init__(self, source: Source, purpose: str, prefix: str, check: Callable[[Cluster], None]) -> None:
        self._source = source
        self._purpose = purpose
        self._prefix = prefix
        self._check = check
        self._not_before = 0.0

    def renew_if_due(self, session: ReplicationSession, watermark: int) -> ReplicationSession:
        """Return a session that goes on at `watermark`, after closing `session`; or `session` itself.

        A transaction that `session` has read in part is sent again: its changes are to be dropped by position. A
        session that is used up is only returned if it can't be renewed.
        """
        reader = session.reader
        is_late = reader.is_quiet and watermark - reader.reported >= RENEW_BYTES
        if not session.is_used_up and not (is_late and time.monotonic() >= self._not_before):
            return session
        began = time.monotonic()
        try:
            renewed = renew_reader(
                self._source, session, watermark, purpose=self._purpose, prefix=self._prefix, check=self._check
            )
        except PgdocError as exc:
            logger.warning(
                'slot "%s" can\'t be copied, and holds back the WAL since %s: %s',
                reader.slot,
                Lsn(reader.reported),
                exc,
            )
            return session
        finally:
            self._not_before = time.monotonic() + max(_RETRY_S, _PAUSE_FACTOR * (time.monotonic() - began))
        reader.close()
        logger.info("moved to a new slot at %s, to release WAL or memory", Lsn(watermark))
        return renewed
