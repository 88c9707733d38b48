"""Reads the partitions that a member of a group owns, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pgdoc.errors import PgdocError
from pgdoc.relay.engines import open_log_reader, open_records
from pgdoc.relay.feed import LogFeed
from pgdoc.relay.groups.membership import GroupMembership
from pgdoc.relay.loop_thread import LoopThread, finish
from pgdoc.relay.partitions import encoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from pgdoc.relay.finding import LogPosition
    from pgdoc.relay.groups.partition import OwnedPartition
    from pgdoc.relay.inbox import AsyncInbox, Inbox
    from pgdoc.relay.remote_options import RemoteOptions
    from pgdoc.relay.targets import LogTarget

__all__ = ["GroupReading"]

_CLOSE_S: Final = 5.0


class GroupReading:
    """Reads the partitions of one member into an inbox.

    Args:
        inbox_of: returns another inbox for a partition, which the engine's thread has taken.

    Attributes:
        begun_at: where the group began; `None` before it is open.
        membership: which partitions are this member's.
    """

    def __init__(  # noqa: PLR0913 (what a group consists of)
        self,
        target: LogTarget,
        options: RemoteOptions,
        inbox: Inbox | AsyncInbox,
        *,
        group: str,
        lease_s: float,
        inbox_of: Callable[[OwnedPartition], Inbox | AsyncInbox] | None = None,
    ) -> None:
        self._target, self._options, self._inbox, self._inbox_of = target, options, inbox, inbox_of
        self.membership = GroupMembership(
            open_records(target), encoded(group), lease_s=lease_s, taken=self._take, dropped=self._drop
        )
        self._first = LogFeed(open_log_reader(target), inbox, target.shown)
        self._thread: LoopThread | None = None
        self._task: asyncio.Task[None] | None = None  # of the loop: that of the membership
        self._tasks: dict[OwnedPartition, tuple[LogFeed, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.begun_at: LogPosition | None = None

    @property
    def mode(self) -> str:
        """`reconnecting` or `catching_up` if one of the partitions is, else `live`; `standby` without one."""
        modes = {feed.mode for feed, _ in list(self._tasks.values())}
        return next((mode for mode in ("reconnecting", "catching_up", "live") if mode in modes), "standby")

    @property
    def source(self) -> str:
        """Of which database the events are, after `start`."""
        return self._first.source

    def start(self) -> Future[LogPosition]:
        """Begin to open the log and join the group."""
        self._thread = LoopThread(f"pgdoc-read-{self._target.name}")
        return self._thread.submit(self._open())

    async def _open(self) -> LogPosition:
        try:
            begin = await self._first.open(self._options.start)
            partitions = self._first.partitions
        finally:
            await self._first.close()
        self._begun = await self.membership.open(partitions, begin)
        await self.membership.beat()
        return self._begun

    def run(self) -> None:
        """Read on, after `start`."""
        self.begun_at = self._begun
        if self._thread is not None:
            self._thread.submit(self._run())

    async def _run(self) -> None:
        self._task = asyncio.create_task(self.membership.run(self._inbox.fail))

    def _take(self, partition: OwnedPartition) -> None:
        feed = LogFeed(
            open_log_reader(self._target),
            self._inbox if self._inbox_of is None else self._inbox_of(partition),
            self._target.shown,
            collections=self._options.names,
            partitions=(partition.number,),
            source=partition,
            sharers=lambda: len(self._tasks) if self._inbox_of is None else 1,
        )
        feed.partitions = self._first.partitions  # as the members have divided them
        self._tasks[partition] = feed, asyncio.get_running_loop().create_task(self._read(feed, partition))

    async def _read(self, feed: LogFeed, partition: OwnedPartition) -> None:
        try:
            await feed.run(partition.begun_at)
        finally:
            with contextlib.suppress(PgdocError):
                await finish(feed.close())
            self._tasks.pop(partition, None)

    def _drop(self, partition: OwnedPartition) -> None:
        found = self._tasks.pop(partition, None)
        if found is not None:
            task = found[1]
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def close(self) -> None:
        """Store positions, leave the group, end reading and the thread, and wait for that."""
        self._inbox.close()
        thread, self._thread = self._thread, None
        if thread is None or not thread.is_alive:
            return
        closing = thread.submit(self._leave())
        try:
            closing.result(_CLOSE_S)
        except Exception:  # noqa: BLE001 (the engine is away; the lease ends by itself)
            closing.cancel()
        finally:  # also after a KeyboardInterrupt
            thread.close()

    async def _leave(self) -> None:
        self.membership.stop()
        tasks = [task for _, task in self._tasks.values()]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        tasks += self._ending  # these are cancelled already, and are closing their connections
        if tasks:
            await asyncio.wait(tasks)
        await self.membership.close()

    def abandon(self) -> None:
        """End reading without waiting, for a stream that is dropped without `close`."""
        self._inbox.close()
        if self._thread is not None:
            self._thread.abandon(self._leave())
