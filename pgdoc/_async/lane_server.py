"""What a lane asks of the server: repeated after conflicts, and when the server is back."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, TypeVar

import psycopg

from pgdoc.errors import CommitUnknown, ConsumerLost, PgdocError, StoreClosed
from pgdoc.workers.failures import Postponed, is_loss, is_outage, is_read_only, met_conflict, text_of

if TYPE_CHECKING:
    from pgdoc._async.store import AsyncStore
    from pgdoc.runtime.activities import AsyncFlag
    from pgdoc.runtime.primitives import AsyncAct
    from pgdoc.workers.figures import HandlerFigures

    T = TypeVar("T")

__all__ = ["AsyncLaneServer", "LaneEnded"]

logger = logging.getLogger("pgdoc.worker")

CONFLICT_DELAY_S = 0.05
MOST_CONFLICTS = 100
"""How often a batch that meets another transaction is repeated at once, before that counts as a failure."""
MOST_LOSSES = 3
"""How often a batch may lose its connection in a row, before that counts as a failure: it may crash its session."""
SERVER_POLL_S = 1.0


class LaneEnded(Exception):  # noqa: N818 (it is no error)
    """The lane ends between two attempts; nothing of the batch is stored."""


class AsyncLaneServer:
    """Repeats the transactions of a lane while they fail for reasons that are not the events'.

    Attributes:
        raised: what the handler itself has raised, in the current attempt.
    """

    def __init__(self, store: AsyncStore, title: str, figures: HandlerFigures, ends: AsyncFlag) -> None:
        self._store = store
        self._title = title
        self._figures = figures
        self._ends = ends
        self.raised: BaseException | None = None

    async def pause(self, seconds: float | None) -> None:
        """Wait, for `None` without a limit; raise `LaneEnded` if the lane ends meanwhile."""
        if await self._ends.wait(seconds):
            raise LaneEnded

    async def until_served(self, act: AsyncAct[T], is_stored: AsyncAct[bool] | None = None) -> T:
        """Call `act`; repeat it at once after a conflict, and when the server is back, if that was away.

        A handler that wants to be called later is called again then.

        After a commit whose end nobody knows, `is_stored` tells whether it took place; then `act` returns nothing.
        """
        conflicts, losses, is_unknown = 0, 0, False
        while True:
            try:
                if is_unknown and is_stored is not None and await is_stored():
                    return None  # type: ignore[return-value]  # what may be stored returns nothing
                self.raised = None
                return await act()
            except Postponed as exc:
                self._figures.state = "backing_off"
                await self.pause(exc.seconds)
            except (PgdocError, psycopg.Error) as exc:
                is_own = exc is not self.raised
                if is_own and isinstance(exc, ConsumerLost | StoreClosed):
                    raise
                is_unknown = is_unknown or (is_own and isinstance(exc, CommitUnknown))
                losses += is_loss(exc)
                if met_conflict(exc) and conflicts < MOST_CONFLICTS:
                    conflicts += 1
                    await self.pause(random.uniform(0, CONFLICT_DELAY_S))  # noqa: S311 (nothing secret)
                elif losses > MOST_LOSSES or not await self._is_excused(exc):
                    raise
                else:
                    await self.pause(0)  # a lane that was called off has lost its connection, and does not try again

    async def _is_excused(self, error: Exception) -> bool:
        """Whether an error is due to the server; waits until that serves again."""
        if is_read_only(error):
            return await self._wait_while_read_only(error)
        is_away = is_outage(error)
        if not is_away and not is_loss(error):
            return False
        while True:
            if is_away:
                await self._wait_a_while(error)
            try:
                await self._store._connections.fetch(b"SELECT 1", [])  # noqa: SLF001 (one package)
            except (PgdocError, psycopg.Error) as exc:
                if isinstance(exc, StoreClosed):
                    raise
                is_away = True
            else:
                return True

    async def _wait_while_read_only(self, error: Exception) -> bool:
        """Wait until the server takes writes; return `False` if only the transaction took none."""
        is_excused = False
        while True:
            try:
                (row,) = await self._store._connections.fetch(  # noqa: SLF001 (one package)
                    b"SELECT pg_catalog.current_setting('transaction_read_only') = 'on'", []
                )
            except (PgdocError, psycopg.Error) as exc:
                if isinstance(exc, StoreClosed):
                    raise
                is_excused = True
            else:
                if not row[0]:
                    return is_excused
                is_excused = True
            await self._wait_a_while(error)

    async def _wait_a_while(self, error: Exception) -> None:
        if self._figures.state != "waiting_for_server":
            logger.warning("%s waits for the server: %s", self._title, text_of(error))
        self._figures.state = "waiting_for_server"
        await self.pause(SERVER_POLL_S)
