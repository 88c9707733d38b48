# Written by .ci/twins.py from pgdoc/_async/live_stream.py: change that file, and run it.
"""The stream that feeds the live queries of one collection or table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc._sync.snapshot_reader import settle
from pgdoc._sync.stream import ChangeStream
from pgdoc.errors import StreamClosed
from pgdoc.live.inbox import LivePlace
from pgdoc.streams.batch import BATCH
from pgdoc.streams.options import BUFFER_BYTES, BUFFER_SIZE, StreamOptions, make_selection

if TYPE_CHECKING:
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.changes.events import ChangeEvent

__all__ = ["LiveStream", "open_live_stream"]


class LiveStream(ChangeStream[Any]):
    """A stream whose reader is told where transactions end, and can be woken."""

    def take(self, timeout_s: float) -> list[ChangeEvent[Any]]:
        """Return the next events; perhaps none, after `timeout_s` seconds or a `nudge`.

        Raises:
            StreamClosed: the stream was closed, or its collection no longer exists.
            PgdocError: what ended the stream. Every event before it is returned first.
        """
        if self._delivery.has_ended:
            raise StreamClosed("the stream has ended")
        self._mailbox.take(timeout_s)
        return self._delivery.next_events(BATCH)

    @property
    def place(self) -> LivePlace:
        """The position before which every change was returned: between transactions, if `take` has returned none."""
        feed = self._delivery.feed
        assert feed is not None  # noqa: S101 (it is open)
        return LivePlace(self._delivery.position(feed), feed.ids)

    def nudge(self) -> None:
        """Let the present `take`, or the next, return; for any thread."""
        self._mailbox.nudge()

    def ask(self) -> None:
        """Have the server say at once how far its WAL goes."""
        feed = self._delivery.feed
        if feed is not None:
            feed.ask()


def open_live_stream(backend: StreamBackend, name: str) -> LiveStream:
    """Open a stream on one collection or table, from now on.

    When it returns, every transaction that committed before the stream's beginning is visible to statements.
    """
    options = StreamOptions.checked(
        codec=backend.codec,
        where=None,
        snapshot=False,
        resume_after=None,
        consumer=None,
        auto_ack=True,
        wait=True,
        on_lost="raise",
        buffer_size=BUFFER_SIZE,
        buffer_bytes=BUFFER_BYTES,
    )
    stream = LiveStream(backend, make_selection((name,), None, tables=False), options)
    try:
        stream._open()  # noqa: SLF001 (as `watch` does)
        settle(backend)
    except BaseException:
        stream.close()
        raise
    return stream
