# Written by .ci/twins.py from pgdoc/_async/relay_windows.py: change that file, and run it.
"""The windows of a relay on their way to its log: sent, acknowledged, and sent again after an error."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pgdoc.errors import LogError, LogFull
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.flights import Flight, Flights
from pgdoc.runtime.primitives import sleep, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.tokens import Mark
    from pgdoc.relay.config import LogConfig
    from pgdoc.relay.figures import RelayFigures
    from pgdoc.relay.log import LogEnd, LogWriter
    from pgdoc.relay.loop_thread import LoopThread
    from pgdoc.relay.messages import Window
    from pgdoc.relay.outbound import Outbound

    T = TypeVar("T")

__all__ = ["Windows", "Landed", "Reopen"]

logger = logging.getLogger("pgdoc.relay")

IN_FLIGHT = 4
LEAVE_S = 5.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
_POLL_S = 0.2
_COARSE_S = 0.5


class Reopen(Exception):  # noqa: N818 (it is no error)
    """The log does not end where this relay believed, or the relay stops: find out anew what the log lacks."""


class Landed(NamedTuple):
    """What the engine has acknowledged, and may yet lose at a power failure.

    Attributes:
        at: when, as `time.monotonic()`.
        mark: how far the consumer has come with it.
        sequence: of the last entry.
    """

    at: float
    mark: Mark
    sequence: int


class Windows:
    """Sends windows, a few at a time, and takes their acknowledgements in order.

    Args:
        log: the log's name for messages.
        stops: whether the relay is to stop.

    Attributes:
        landed: the windows that the engine has acknowledged, before the relay confirms them to the consumer; in order.
        outbound: makes the messages.
    """

    outbound: Outbound

    def __init__(
        self,
        writer: LogWriter,
        thread: LoopThread,
        figures: RelayFigures,
        *,
        log: str,
        stops: Callable[[], bool],
    ) -> None:
        self._writer, self._thread, self._figures = writer, thread, figures
        self._log, self._stops = log, stops
        self._stopped_at: float | None = None
        self._delay_s = FIRST_DELAY_S  # before the log is opened again; grows until it takes an entry
        self._config: LogConfig | None = None
        self._identity = ""
        self._flights: Flights[Future[int]] = Flights(0)
        self.landed: deque[Landed] = deque()

    @property
    def acknowledged(self) -> int:
        """The sequence of the last entry that was acknowledged."""
        return self._flights.acknowledged

    @property
    def in_flight(self) -> int:
        """How many windows are not acknowledged."""
        return len(self._flights)

    @property
    def identity(self) -> str:
        """The identity of the log."""
        return self._identity

    def open(self, config: LogConfig) -> LogEnd:
        """Open the log, and return where it ends."""
        self._config = config
        end = self._ask(self._writer.open(config))
        self._identity, self._flights = end.identity, Flights(end.sequence)
        self._figures.sequence = end.sequence
        return end

    def send(self, events: Iterable[ChangeEvent], mark_of: Callable[[ChangeEvent], Mark | None]) -> None:
        """Send the messages of the events that the log lacks; wait while too many are on their way."""
        for window, last in self.outbound.windows_of(events):
            mark = None if last is None else mark_of(last)
            if window:
                self._figures.sent += len(window)
                self._launch(window, mark)
                self.land(IN_FLIGHT - 1)
            elif mark is not None and not self.outbound.is_skipping and not self._flights:
                self._note(mark, self.acknowledged)  # the log ends with this event

    def _launch(self, window: Window, mark: Mark | None) -> None:
        self._flights.add(Flight(window, mark, self._thread.submit(self._writer.send(window))))

    def land(self, most: int) -> None:
        """Take what is acknowledged, and wait until at most so many windows are on their way."""
        flights, figures = self._flights, self._figures
        while flights and (len(flights) > most or flights.first.sent.done()):
            try:
                sequence = self._result(flights.first.sent)
            except LogError as exc:
                if not exc.resumable:
                    raise
                self.recover(exc)
                continue
            flight = flights.land()
            figures.sequence, figures.token = sequence, flight.window[-1].token
            figures.stored += len(flight.window)
            self._note_progress()
            self._note(flight.mark, sequence)

    def _note_progress(self) -> None:
        """Note that the log takes entries."""
        figures, self._delay_s = self._figures, FIRST_DELAY_S
        if figures.error is not None:
            logger.info("%s takes entries again", self._log)
        figures.state, figures.error = "relaying", None

    def check(self, sequence: int) -> None:
        """Make sure that the log still has what it has acknowledged, up to this entry.

        Raises:
            Reopen: it does not.
        """
        try:
            self._ask(self._writer.check(sequence))
        except LogError as exc:
            if not exc.resumable:
                raise
            self.recover(exc)

    def _note(self, mark: Mark | None, sequence: int) -> None:
        """Note what was acknowledged; of a short while only the last, under the time of the last."""
        if mark is None:
            return
        now, landed = time.monotonic(), self.landed
        if len(landed) > 1 and now - landed[-2].at < _COARSE_S:
            landed.pop()
        landed.append(Landed(now, mark, sequence))

    def recover(self, error: LogError) -> None:
        """Open the log again, and send what it lacks of the windows on their way.

        Raises:
            Reopen: it does not end at one of these.
        """
        end = self._opened_again(error)
        flights, figures = self._flights, self._figures
        if end.identity != self._identity:
            raise Reopen
        if not flights.has_within(end):
            self._give_way(end)
            return
        left = flights.rest(end)
        figures.stored, figures.sequence = figures.sent - sum(len(window) for window, _ in left), end.sequence
        if not left:
            self._note_progress()
        for window, mark in left:
            self._launch(window, mark)

    def _give_way(self, end: LogEnd) -> None:
        """Leave out what another relay, which has another consumer, has stored beyond the windows on their way.

        Raises:
            Reopen: the log ends before these, or is not certain to have them.
        """
        flights, figures = self._flights, self._figures
        token = None if end.token is None else ResumeToken.parse(end.token)
        if (
            token is None
            or token.is_inside
            or end.sequence < self.acknowledged + sum(len(each.window) for each in flights)
        ):
            raise Reopen
        while flights:
            flight = flights.land()
            self._note(flight.mark, flights.acknowledged)
        flights.acknowledged = figures.sequence = end.sequence
        figures.stored = figures.sent
        self._note_progress()
        self.outbound.skip_to(token, end.part)

    def _opened_again(self, error: LogError) -> LogEnd:
        figures = self._figures
        if figures.error == str(error):  # one warning for each reason
            logger.debug("%s is still interrupted: %s", self._log, error)
        else:
            logger.warning("%s is interrupted: %s", self._log, error)
        while True:
            figures.interruptions += 1
            figures.error = str(error)
            figures.state = "log_full" if isinstance(error, LogFull) else "waiting_for_log"
            self._pause(self._delay_s)
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
            assert self._config is not None  # noqa: S101 (opened before)
            try:
                return self._ask(self._writer.open(self._config))
            except LogError as exc:
                if not exc.resumable:
                    raise
                error = exc

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stops():
                raise Reopen
            sleep(min(_POLL_S, seconds))

    def _ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._result(self._thread.submit(coroutine))

    def _result(self, future: Future[T]) -> T:
        """Wait for the engine; a relay that stops waits only a few seconds more.

        Raises:
            Reopen: it has waited for so long.
        """
        while not future.done():
            wait_for(future, _POLL_S)
            if self._stops():
                self._stopped_at = self._stopped_at or time.monotonic()
                if time.monotonic() - self._stopped_at > LEAVE_S and not future.done():
                    future.cancel()
                    raise Reopen
        return future.result()
