"""The socket of one walsender: START_REPLICATION, frames in, status updates out.

The connection's COPY is driven without ever blocking inside libpq, which would hold the GIL: data is taken with
`get_copy_data(1)`, and where there is none, `poll` waits on the socket and on a wake-up pipe. Status updates go out on
this thread only, so whoever owns a reader has to come back to `read` within seconds.
"""

from __future__ import annotations

import select
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

from pgdoc.decoding.frames import XLOG_DATA, parse_keepalive, standby_status_update, xlog_start
from pgdoc.errors import ServerUnreachable
from pgdoc.replication.connection import map_replication_error, quote_identifier, quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BURST_FRAMES = 512
"""Frames given by one `read` at the most, so that one burst is a small step for everyone it goes to."""

_MORE_FRAMES = 8
"""libpq receives 16 KB at a time: where so many came, more may be waiting."""

_STATUS_INTERVAL_S = 10.0
_SILENCE_LIMIT = 4  # status intervals; each begins with a question to the server


class Reader:
    """Reads frames from a slot; made by `replication.slots.open_reader`.

    Args:
        connection: made with `replication=True`, idle.
        slot: a slot that this connection may stream from.
        start: the LSN to start at, not below the slot's `confirmed_flush_lsn`.
        options: the output plugin's.
        is_decoding: asks the server whether the walsender of this pid is at work.

    Attributes:
        wal_end: the highest LSN heard of.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        slot: str,
        start: int,
        options: Mapping[str, str],
        is_decoding: Callable[[int], bool],
    ) -> None:
        self.slot = slot
        self._is_decoding = is_decoding
        self.wal_end = start
        self._connection = connection
        self._pgconn = connection.pgconn
        self._received = start
        self._confirmed = self._told = 0
        self._answer_due = self._question_due = False
        self._interval_s = _status_interval_s(connection)
        self._wake_reads, self._wake_writes = socket.socketpair()
        self._wake_reads.setblocking(False)
        self._wake_writes.setblocking(False)
        try:
            self._start(slot, start, options)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._poll.register(self._wake_reads, select.POLLIN)
        self._last_heard = self._last_asked = time.monotonic()

    def _start(self, slot: str, start: int, options: Mapping[str, str]) -> None:
        listed = ", ".join(f"{quote_identifier(name)} {quote_literal(value)}" for name, value in options.items())
        place = f"{start >> 32:X}/{start & 0xFFFFFFFF:X}"
        try:
            self._connection.execute(f"START_REPLICATION SLOT {quote_identifier(slot)} LOGICAL {place} ({listed})")
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc
        self._pgconn.nonblocking = 1

    def read(self, timeout_s: float) -> list[bytes]:
        """Give the frames that have come, after waiting `timeout_s` at most; may be empty.

        Keepalives are answered here, and only handed on for what they say about the WAL's end.

        Raises:
            ServerUnreachable: the connection ended, or nothing was heard for several status intervals.
        """
        try:
            frames: list[bytes] = []
            self._take(frames)
            if not frames:
                self._report()
                self._wait(timeout_s)
            while self._take(frames) and len(frames) >= _MORE_FRAMES:
                self._pgconn.consume_input()
            if not frames:
                self._check_silence()
            self._report()
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc
        return frames

    def report(self) -> None:
        """Send the status update that is due, while nothing is read; for a wait of some seconds.

        Raises:
            ServerUnreachable: the connection ended.
        """
        try:
            self._report()
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc

    def confirm(self, lsn: int) -> None:
        """Let the next status update say that nothing below `lsn` is needed again."""
        self._confirmed = max(self._confirmed, lsn)

    def tell(self) -> None:
        """Say at once what was confirmed, if that is news, though more may have been received.

        Raises:
            ServerUnreachable: the connection ended.
        """
        if self._confirmed <= self._told:
            return
        try:
            self._send_status(flush=self._confirmed, reply=False)
        except psycopg.Error as exc:
            raise map_replication_error(exc, self._connection) from exc

    def ask(self) -> None:
        """Let the next `read` ask the server to say how far it is."""
        self._question_due = True

    def wake(self) -> None:
        """Make a `read` that waits in another thread return."""
        try:
            self._wake_writes.send(b"w")
        except OSError:
            return  # closed, or woken often enough

    def report_soon(self) -> None:
        """Let another thread's `read` report at once how far it has come."""
        self._answer_due = True
        self.wake()

    def close(self) -> None:
        """End the connection, and with it a temporary slot."""
        self._connection.close()
        self._wake_reads.close()
        self._wake_writes.close()

    def _take(self, frames: list[bytes]) -> bool:
        """Add the frames that libpq holds, as far as a burst goes; give whether there were any."""
        before = len(frames)
        get, append = self._pgconn.get_copy_data, frames.append
        while len(frames) < BURST_FRAMES:
            size, taken = get(1)
            if size > 0:
                frame = bytes(taken)
                append(frame)
                if frame[0] != XLOG_DATA:
                    self._heard_keepalive(frame)
                continue
            if size < 0:
                self._raise_end(size)
            break
        if len(frames) > before:
            self._last_heard = time.monotonic()
            if frames[-1][0] == XLOG_DATA:
                self._received = max(self._received, xlog_start(frames[-1]))
                self.wal_end = max(self.wal_end, self._received)
        return len(frames) > before

    def _heard_keepalive(self, frame: bytes) -> None:
        keepalive = parse_keepalive(frame)
        self._received = max(self._received, keepalive.wal_end)
        self.wal_end = max(self.wal_end, keepalive.wal_end)
        self._answer_due = self._answer_due or keepalive.reply_requested

    def _wait(self, timeout_s: float) -> None:
        for descriptor, _ in self._poll.poll(max(0.0, min(timeout_s, self._interval_s)) * 1000):
            if descriptor == self._pgconn.socket:
                self._pgconn.consume_input()
            else:
                self._wake_reads.recv(4096)

    def _report(self) -> None:
        if self._answer_due:
            self._answer()
        now = time.monotonic()
        if self._question_due or now - self._last_asked >= self._interval_s:
            self._question_due = False
            self._last_asked = now
            self._send_status(flush=self._confirmed, reply=True)

    def _check_silence(self) -> None:
        """Give up on a server that answers nothing; called when there is nothing left to read."""
        silent_s = time.monotonic() - self._last_heard
        if silent_s <= self._interval_s * _SILENCE_LIMIT:
            return
        if not self._is_decoding(self._pgconn.backend_pid):
            raise ServerUnreachable(f"the server has not been heard for {silent_s:.0f} s")
        self._last_heard = time.monotonic()  # it is busy with what it filters

    def _answer(self) -> None:
        """Answer a keepalive: a server that stops goes by `write` where `flush` is 0, and waits for a stale one."""
        self._answer_due = False
        self._send_status(flush=self._confirmed if self._confirmed >= self._received else 0, reply=False)

    def _send_status(self, *, flush: int, reply: bool) -> None:
        status = standby_status_update(write=self._received, flush=flush, now=datetime.now(UTC), reply=reply)
        self._told = max(self._told, flush)
        self._pgconn.put_copy_data(status)
        self._pgconn.flush()

    def _raise_end(self, size: int) -> None:
        if size == -1:
            result = self._pgconn.get_result()
            if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        raise psycopg.OperationalError("the server ended the stream")


def _status_interval_s(connection: psycopg.Connection[Any]) -> float:
    """Give a third of `wal_sender_timeout`, 10 s at the most."""
    row = connection.execute("SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout'").fetchone()
    timeout_ms = row[0] if row else 0
    return min(timeout_ms / 3000, _STATUS_INTERVAL_S) if timeout_ms else _STATUS_INTERVAL_S
