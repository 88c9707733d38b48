"""The connection to one walsender: START_REPLICATION, frames in, status updates out.

The COPY never blocks inside libpq, which would hold the GIL: `get_copy_data(1)` takes what has arrived; if there is
nothing, `poll` waits for the socket and a wake-up pipe. Only the thread that owns the reader sends status updates, so
it has to call `read`, or `report`, every few seconds. `standby` says which of them have a flush position.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from pgdoc.decoding.frames import (
    LARGE_BYTES,
    XLOG_DATA,
    copy_large,
    keepalive_sent_at,
    parse_keepalive,
    standby_status_update,
    xlog_start,
)
from pgdoc.errors import ServerUnreachable
from pgdoc.model.positions import Lsn
from pgdoc.replication.connection import map_replication_error, quote_identifier, quote_option
from pgdoc.runtime.census import CENSUS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgdoc.replication.standby import StandbyCheck
    from pgdoc.replication.traffic import Tally

BURST_FRAMES = 512
"""The largest number of frames that `read` returns, so that dispatching a burst takes little time."""

_MORE_FRAMES = 8
"""libpq receives a part at a time: after this many frames more may be waiting in the socket."""

_PADDING = 50_000
"""libpq receives as much as its buffer holds, 16 KB, and only a longer message makes it grow: to 64 KB by this.
That takes half the time for each frame of a backlog, and a larger buffer gains nothing."""

_STATUS_INTERVAL_S = 10.0
_WAL_SENDER_TIMEOUT_MS = 60_000
"""Where the server's is 0, which lets a walsender wait for ever for a client that hangs, and the shutdown with it."""

_CLOCKS = 6
"""How many keepalives count for the difference of the clocks: one in each status interval."""

_SILENCE_LIMIT = 4  # in status intervals; the reader asks the server for a reply in each


class Reader:
    """Reads frames from a slot; opened by `replication.session`.

    Args:
        connection: a replication connection that is idle.
        start: the LSN to start at, not below the slot's `confirmed_flush_lsn`.
        is_decoding: asks the server whether the walsender with this pid is decoding.
        standby: asks the server whether the walsender could count as a synchronous standby. `close` closes it, too.
        tally: counts what is received.

    Attributes:
        pid: that of the walsender.
        wal_end: the highest LSN that the server has reported.
        is_quiet: whether it could count as a synchronous standby, so that nothing is confirmed; as of the last time
            that there was something to confirm.
        has_large_buffer: whether a large frame came, for which libpq keeps memory until the connection is closed.
        is_elsewhere: whether the socket of `watch` had something to read since.
        waited_at: the time of `time.monotonic` at which nothing was left to read.
        clock_ahead_s: how far the server's clock is ahead of this process's; 0 until a keepalive tells.
    """

    def __init__(  # noqa: PLR0913 (what a session consists of)
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        start: int,
        options: Mapping[str, str],
        *,
        is_decoding: Callable[[int], bool],
        standby: StandbyCheck,
        tally: Tally,
    ) -> None:
        self.slot = slot
        self._tally = tally
        CENSUS.enter(self, tally)
        self._is_decoding = is_decoding
        self._standby = standby
        self._connection = connection
        self._pgconn = connection.pgconn
        self.pid = self._pgconn.backend_pid  # now: a connection that was lost does not say
        self._interval_s = _status_interval_s(connection)

        # Written by the thread that owns the reader; any thread may read what has no underscore.
        self.wal_end = start
        self.is_quiet = False
        self.has_large_buffer = False
        self.is_elsewhere = False
        self.waited_at = time.monotonic()
        self.clock_ahead_s = 0.0
        self._clocks: deque[float] = deque(maxlen=_CLOCKS)
        self._clock_due = True
        self._started_at = self._received = start
        self._end: int | None = None  # libpq's answer when the server ended the stream
        self._confirmed = self._reported = 0
        self._question_due = False

        # Set by any thread without a lock, reset by the owner.
        self._answer_due = False

        # `wake` writes on any thread, the owner reads.
        self._wake_reads, self._wake_writes = socket.socketpair()
        self._wake_reads.setblocking(False)
        self._wake_writes.setblocking(False)
        try:
            self._check_standby()
            self._start(slot, start, options)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._poll.register(self._wake_reads, select.POLLIN)
        self._last_heard = self._last_asked = time.monotonic()

    def _start(self, slot: str, start: int, options: Mapping[str, str]) -> None:
        listed = ", ".join(f"{quote_identifier(name)} {quote_option(value)}" for name, value in options.items())
        at = Lsn(start)
        try:
            self._connection.execute(f"START_REPLICATION SLOT {quote_identifier(slot)} LOGICAL {at} ({listed})")
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc
        self._pgconn.nonblocking = 1

    def read(self, timeout_s: float) -> list[bytes]:
        """Return the frames that have arrived, waiting up to `timeout_s` for the first; may be empty.

        Keepalives are answered here, and returned, too: they report the end of the WAL.

        Raises:
            ServerUnreachable: the connection ended, or the server was silent for several status intervals.
        """
        try:
            if self._end is not None:
                self._raise_end(self._end)
            frames: list[bytes] = []
            self._take(frames)
            if not frames:
                self._report()
                self._wait(timeout_s)
            while self._end is None and self._take(frames) and len(frames) >= _MORE_FRAMES:
                self._pgconn.consume_input()
            if not frames:
                self._check_silence()
            self._report()
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc
        return frames

    def report(self) -> None:
        """Send the status update that is due; for an owner that waits some seconds without reading."""
        try:
            self._report()
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc

    def confirm(self, lsn: int) -> None:
        """Let the next status update report that nothing below `lsn` is needed again."""
        self._confirmed = max(self._confirmed, lsn)

    def report_confirmed(self) -> None:
        """Report at once what was newly confirmed, although more may have been received."""
        try:
            self._report_confirmed()
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc

    @property
    def reported(self) -> int:
        """The LSN that was confirmed to the slot, or else at which it started."""
        return self._reported or self._started_at

    def ask(self) -> None:
        """Let the next `read` ask the server for the end of its WAL."""
        self._question_due = True

    def watch(self, descriptor: int) -> None:
        """Let the first `read` return that finds something to read at this socket, and set `is_elsewhere`."""
        self.is_elsewhere = False
        self._poll.register(descriptor, select.POLLIN)

    def wake(self) -> None:
        """Make a `read` that waits in another thread return; takes no lock."""
        try:
            self._wake_writes.send(b"w")
        except OSError:
            return  # closed, or the pipe is full of earlier wake-ups

    def report_soon(self) -> None:
        """Let the owner's `read` report its progress at once; for any thread."""
        self._answer_due = True
        self.wake()

    def close(self) -> None:
        """Close the connection, which drops a temporary slot."""
        self._connection.close()
        self._standby.close()
        self._wake_reads.close()
        self._wake_writes.close()

    def _take(self, frames: list[bytes]) -> bool:
        """Add the frames that libpq holds, up to a burst; return whether there were any.

        What the server sent before it ended the stream is returned first: it says which transaction it could not send.
        """
        before = len(frames)
        get, append = self._pgconn.get_copy_data, frames.append
        while len(frames) < BURST_FRAMES:
            size, taken = get(1)
            if size > 0:
                frame = bytes(taken) if size <= LARGE_BYTES else self._take_large(taken)
                append(frame)
                if frame[0] != XLOG_DATA:
                    self._note_keepalive(frame)
                continue
            if size < 0:
                self._end = size
                if not frames:
                    self._raise_end(size)
            break
        if len(frames) > before:
            self._last_heard = time.monotonic()
            self._tally.received_bytes += sum(map(len, frames[before:] if before else frames))
            if frames[-1][0] == XLOG_DATA:
                self._received = max(self._received, xlog_start(frames[-1]))
                self.wal_end = max(self.wal_end, self._received)
        return len(frames) > before

    def _take_large(self, taken: memoryview) -> bytes:
        self.has_large_buffer = True
        return copy_large(taken)

    def _note_keepalive(self, frame: bytes) -> None:
        keepalive = parse_keepalive(frame)
        self._received = max(self._received, keepalive.wal_end)
        self.wal_end = max(self.wal_end, keepalive.wal_end)
        self._answer_due = self._answer_due or keepalive.reply_requested
        if self._clock_due:
            self._clock_due = False
            self._clocks.append(keepalive_sent_at(frame) - time.time())
            self.clock_ahead_s = max(self._clocks)  # each is too low by the time that the keepalive was under way

    def _wait(self, timeout_s: float) -> None:
        self.waited_at = time.monotonic()
        for descriptor, _ in self._poll.poll(max(0.0, min(timeout_s, self._interval_s)) * 1000):
            if descriptor == self._pgconn.socket:
                self._pgconn.consume_input()
            elif descriptor == self._wake_reads.fileno():
                self._wake_reads.recv(4096)
            else:
                self.is_elsewhere = True
                self._poll.unregister(descriptor)

    def _report(self) -> None:
        if self._end is not None:  # nothing can be sent any more, and `read` raises the server's error
            return
        now = time.monotonic()
        asks = self._question_due or now - self._last_asked >= self._interval_s
        if not asks and not self._answer_due:
            return
        if asks:
            self._last_asked, self._clock_due = now, True
        self._question_due = self._answer_due = False
        self._send_status(flush=0, reply=asks)  # before anything that waits: a server that shuts down waits for it
        self._report_confirmed()

    def _report_confirmed(self) -> None:
        """Report what was newly confirmed, unless the server could take that for a standby's report."""
        lsn = self._confirmed  # fixed before the check: see `standby`
        if lsn <= self._reported or self._end is not None:
            return
        self._check_standby()
        if self.is_quiet:
            return
        self._put_status(flush=lsn, reply=False)
        self._send_status(flush=0, reply=False)
        self._reported = lsn

    def _check_standby(self) -> None:
        self.is_quiet = self._standby.could_count(self._connection.info.parameter_status("application_name") or "")

    def _check_silence(self) -> None:
        """Give up on a server that no longer answers; called when nothing is left to read."""
        silent_s = time.monotonic() - self._last_heard
        if silent_s <= self._interval_s * _SILENCE_LIMIT:
            return
        if not self._is_decoding(self._pgconn.backend_pid):
            raise ServerUnreachable(f"the server has sent nothing for {silent_s:.0f} s")
        self._last_heard = time.monotonic()  # it is decoding rows that its filter drops

    def _send_status(self, *, flush: int, reply: bool) -> None:
        self._put_status(flush=flush, reply=reply)
        self._pgconn.flush()

    def _put_status(self, *, flush: int, reply: bool) -> None:
        status = standby_status_update(write=self._received, flush=flush, now=datetime.now(UTC), reply=reply)
        self._pgconn.put_copy_data(status)

    def _raise_end(self, size: int) -> None:
        if size == -1:
            result = self._pgconn.get_result()
            if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        raise psycopg.OperationalError("the server ended the stream")


def _status_interval_s(connection: psycopg.Connection[Any]) -> float:
    """Return a third of `wal_sender_timeout`, at most 10 s; set the timeout for this walsender if there is none.

    The answer also has `_PADDING` characters.
    """
    row = connection.execute(
        f"SELECT setting::int, pg_catalog.repeat(' ', {_PADDING}) FROM pg_catalog.pg_settings"
        " WHERE name OPERATOR(pg_catalog.=) 'wal_sender_timeout'"
    ).fetchone()
    timeout_ms = int(row[0]) if row else 0
    if not timeout_ms:
        timeout_ms = _WAL_SENDER_TIMEOUT_MS
        connection.execute(f"SET wal_sender_timeout = {timeout_ms}")
    return min(timeout_ms / 3000, _STATUS_INTERVAL_S)
