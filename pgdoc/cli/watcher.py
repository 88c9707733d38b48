"""A change stream in a process of its own, which can be killed; what it delivers comes through a pipe."""

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

__all__ = ["Delivery", "Watcher"]

_PATIENCE_S = 30.0


class Delivery(NamedTuple):
    """An event, and when the stream gave it to the watcher's loop."""

    event: ChangeEvent
    received: datetime


class Watcher:
    """The process; a context manager, open once its stream is.

    Args:
        conninfo: of the database.
        schema: of the collections.
        plugin: the output plugin of the stream.
        names: of the collections to watch.
        resume_after: where the stream goes on.
    """

    def __init__(
        self, conninfo: str, schema: str, plugin: str, names: tuple[str, ...], resume_after: ResumeToken | None = None
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe(duplex=False)
        self._process = spawn.Process(
            target=_watch,
            args=(there, (conninfo, schema, plugin), names, resume_after),
            name="pgdoc demo watcher",
            daemon=True,
        )
        self._process.start()
        there.close()  # so that the pipe ends with the process

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
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it as `kill -9` does; what it had sent can still be read."""
        self._process.kill()
        self._process.join()

    def next(self) -> Delivery:
        """Wait for the next event.

        Raises:
            StreamError: the watcher failed, or nothing came for half a minute.
        """
        delivery: Delivery = self._wait()
        return delivery

    def remainder(self) -> Iterator[Delivery]:
        """Give what it had sent whole before it was killed."""
        with suppress(EOFError, OSError):  # the end, and the end inside a message
            while True:
                yield self._pipe.recv()

    def _wait(self) -> Any:
        if not self._pipe.poll(_PATIENCE_S):
            raise StreamError(f"the watcher (pid {self.pid}) delivered nothing for {_PATIENCE_S:.0f} s")
        try:
            message = self._pipe.recv()
        except EOFError as exc:
            raise StreamError(f"the watcher (pid {self.pid}) ended; what it printed above says why") from exc
        if isinstance(message, str):
            raise StreamError(message)
        return message


def _watch(
    pipe: Connection, place: tuple[str, str, str], names: tuple[str, ...], resume_after: ResumeToken | None
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started this one ends it
    conninfo, schema, plugin = place
    try:
        with (
            pgdoc.Store(conninfo, schema=schema, plugin=plugin) as store,
            store.watch(*names, resume_after=resume_after) as stream,
        ):
            pipe.send(None)  # open
            for event in stream:
                pipe.send(Delivery(event, datetime.now(UTC)))
    except PgdocError as error:
        pipe.send(str(error))
    except BrokenPipeError:
        return
