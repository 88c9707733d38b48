"""A change stream in a process that the demo can kill. A pipe carries its events to the demo."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pgdoc
from pgdoc.errors import PgdocError, StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from typing import Self

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.tokens import ResumeToken

__all__ = ["ReceivedEvent", "Watcher"]

_TIMEOUT_S = 30.0


class ReceivedEvent(NamedTuple):
    """An event, and when the watcher's loop received it."""

    event: ChangeEvent
    received: datetime


class Watcher:
    """The watcher process, entered when its stream is open. It continues after `resume_after`, or begins now."""

    def __init__(
        self, conninfo: str, schema: str, plugin: str, names: tuple[str, ...], resume_after: ResumeToken | None = None
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, their_end = spawn.Pipe(duplex=False)
        self._process = spawn.Process(
            target=_watch,
            args=(their_end, (conninfo, schema, plugin), names, resume_after),
            name="pgdoc demo watcher",
            daemon=True,
        )
        self._process.start()
        their_end.close()  # the process then holds the only copy, so the pipe ends when it does

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._pipe.close()

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process as `kill -9` does; `remainder` can still read what it sent."""
        self._process.kill()
        self._process.join()

    def next(self) -> ReceivedEvent:
        """Wait for the next event; raise `StreamError` after half a minute, or if the watcher failed."""
        received: ReceivedEvent = self._wait()
        return received

    def remainder(self) -> Iterator[ReceivedEvent]:
        """Yield the events that the process sent completely before it was killed."""
        with suppress(EOFError, OSError):  # the pipe's end, also in the middle of an event
            while True:
                yield self._pipe.recv()

    def _wait(self) -> Any:
        if not self._pipe.poll(_TIMEOUT_S):
            raise StreamError(f"the watcher (pid {self.pid}) delivered nothing for {_TIMEOUT_S:.0f} s")
        try:
            message = self._pipe.recv()
        except EOFError as exc:
            raise StreamError(f"the watcher (pid {self.pid}) exited: see its output above") from exc
        if isinstance(message, str):
            raise StreamError(message)
        return message


def _watch(
    pipe: Connection, store: tuple[str, str, str], names: tuple[str, ...], resume_after: ResumeToken | None
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole process group; the parent ends this process
    conninfo, schema, plugin = store
    try:
        with (
            pgdoc.Store(conninfo, schema=schema, plugin=plugin) as opened,
            opened.watch(*names, resume_after=resume_after) as stream,
        ):
            pipe.send(None)  # the stream is open
            for event in stream:
                pipe.send(ReceivedEvent(event, datetime.now(UTC)))
    except PgdocError as error:
        pipe.send(str(error))
    except BrokenPipeError:
        return
