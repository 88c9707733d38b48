"""Reads a log in JetStream: by pull, with a consumer that acknowledges nothing.

The server numbers what it sends to a consumer, so a message that is lost on the way shows; and an entry that the
stream has forgotten shows by its own number. A push consumer, which nats-py calls ordered, was seen to deliver with
gaps when its reader was slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import HistoryLost, LogRefused, LogUnreachable
from pgdoc.model.tokens import ResumeToken
from pgdoc.relay.asking import ask_each
from pgdoc.relay.extras import needing_extra
from pgdoc.relay.log import LogInfo
from pgdoc.relay.messages import part_of_text
from pgdoc.relay.nats.connection import CONNECTION_OPTIONS, NatsConnection, map_nats_errors
from pgdoc.relay.nats.raw_parser import RawParser
from pgdoc.relay.nats.stream import NatsStream, is_of_relay
from pgdoc.relay.partitions import encoded

with needing_extra("nats"):
    import nats.js.errors
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

if TYPE_CHECKING:
    from collections.abc import Collection

    from nats.aio.msg import Msg

    from pgdoc.relay.log import LogEntry
    from pgdoc.relay.targets import LogTarget

__all__ = ["READER_OPTIONS", "NatsReader"]

READER_OPTIONS: Final = CONNECTION_OPTIONS | {
    "subjects", "replicas", "max_age", "max_bytes", "when_full", "sync_interval", "ack_wait",
}  # fmt: skip
"""What a relay's URL may have, so that the same one does for readers."""

_INACTIVE_S: Final = 60.0  # after which the server forgets a consumer that nobody asks
_REQUEST_S: Final = 20.0  # how long the server keeps a request
_HEARTBEAT_S: Final = 4.0
_SILENCE_S: Final = 10.0
_AT_ONCE_BYTES: Final = 4 << 20
_MOST_AHEAD: Final = 4096
_POLL_S: Final = 0.5
_HEARTBEAT: Final = "100"
_ENDED: Final = ("404", "408", "409")  # of one request: no messages, expired, its bytes are full


class NatsReader:
    """See `LogReader`."""

    def __init__(self, target: LogTarget) -> None:
        target.check_options(READER_OPTIONS)
        self._target = target
        self._connection = NatsConnection(target)
        self._stream = NatsStream(target, self._connection)
        self._partitions = 0
        self.position = 0
        # Of the consumer that reads now.
        self._parser: RawParser | None = None
        self._inbox, self._consumer = "", ""
        self._filters: list[str] = []
        self._requests: dict[str, int] = {}  # how many messages each may still bring, in their order
        self._asked = 0
        self._arrived: list[LogEntry] = []
        self._number = 0  # of the last message in the consumer
        self._heard_at = 0.0
        self._fault: Exception | None = None
        self._news = asyncio.Event()

    async def open(self) -> LogInfo:
        """See `LogReader`."""
        await self._connection.open_whole()
        self._parser = None
        info = await self._look()
        config = self._stream.config_of(info)
        self._layout, self._partitions = config.layout, config.partitions
        last = info.state.last_seq
        headers = await self._headers(last) if last else {}
        return LogInfo(
            identity=self._stream.identity(info),
            first=max(1, info.state.first_seq),
            last=last,
            config=config,
            begun_at=config.begun_at,
            last_part=part_of_text(headers.get("Pgdoc-Part")) if is_of_relay(headers) else None,
        )

    async def _look(self) -> StreamInfo:
        info = await self._stream.find()
        if info is None:
            raise LogRefused(
                f"{self._stream.shown} does not exist: check the name, or begin to write it with pgdoc relay",
                reason="missing",
            )
        return info

    async def token_at(self, sequence: int) -> str | None:
        """See `LogReader`."""
        return (await self._headers(sequence)).get("Pgdoc-Token")

    async def _headers(self, sequence: int) -> dict[str, str]:
        """Return the headers of a message; none if it is not kept."""
        with map_nats_errors(self._stream.shown):
            try:
                found = await self._connection.jetstream.get_msg(self._stream.name, sequence)
            except nats.js.errors.NotFoundError:
                return {}
        return found.headers or {}

    async def newest(self) -> list[int]:
        """See `LogReader`."""
        of_all, *others = await ask_each(self._newest_of, ["all", *map(str, range(self._partitions))])
        return [max(each, of_all) for each in others]

    async def _newest_of(self, division: str) -> int:
        with self._connection.asking(self._stream.shown):
            try:
                found = await self._connection.jetstream.get_last_msg(
                    self._stream.name, f"{self._stream.name}.{division}.>"
                )
            except nats.js.errors.NotFoundError:
                return 0
        return found.seq or 0

    async def begin(self, after: int, *, collections: Collection[str] = (), partitions: Collection[int] = ()) -> None:
        """See `LogReader`."""
        self._connection.check_open()
        await self._forget_consumer()
        client: Any = self._connection.client
        self._requests, self._arrived, self._number, self._fault = {}, [], 0, None
        self._filters = self._subjects(collections, partitions)
        self.position = after
        name = self._consumer = f"pgdoc-{secrets.token_hex(8)}"
        config = ConsumerConfig(
            name=name,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=_INACTIVE_S,
            filter_subjects=self._filters or None,
            num_replicas=1,
            mem_storage=True,
        )
        with map_nats_errors(self._stream.shown):
            await self._connection.jetstream.add_consumer(self._stream.name, config)
            if self._parser is None:
                self._inbox = client.new_inbox()
                subscription = await client.subscribe(f"{self._inbox}.*", cb=_ignore)
                await client.flush()  # what is asked for goes past nats-py's buffer, where the subscription waits
                self._parser, self._sid = RawParser(client, self._take, self._note), subscription._id  # noqa: SLF001
        self._parser.follow(self._sid, name)
        self._heard_at = asyncio.get_running_loop().time()

    def _subjects(self, collections: Collection[str], partitions: Collection[int]) -> list[str]:
        """Return the subjects of the wanted entries; none for all."""
        if not collections and not partitions:
            return []
        divisions = ["all", *map(str, partitions)] if partitions else ["*"]
        heads = [f"{self._stream.name}.{each}" for each in divisions]
        if not collections:
            return [f"{head}.>" for head in heads]
        subjects = [f"{head}.{encoded(name)}" for head in heads for name in sorted(collections)]
        return [*subjects, *(f"{each}.>" for each in subjects)] if self._layout.endswith(".id") else subjects

    async def _forget_consumer(self) -> None:
        name, self._consumer = self._consumer, ""
        if name and self._parser is not None:
            try:
                await self._connection.jetstream.delete_consumer(self._stream.name, name)
            except Exception:  # noqa: BLE001 (the server forgets it by itself)
                return

    def _take(self, entry: LogEntry, number: int) -> None:
        """Note an entry; the parser calls it."""
        if number != self._number + 1:
            self._fault = LogUnreachable(f"{self._stream.shown}: messages were lost on the way")
        self._number = number
        self._arrived.append(entry)
        for request, left in self._requests.items():
            if left > 1:
                self._requests[request] = left - 1
            else:
                del self._requests[request]
            break
        self._news.set()

    def _note(self, status: str, subject: str) -> None:
        """Note what the server says about a request; the parser calls it."""
        self._heard_at = asyncio.get_running_loop().time()
        if status == _HEARTBEAT:
            return
        self._requests.pop(subject.rpartition(".")[2], None)
        if status not in _ENDED:
            self._fault = LogUnreachable(f"{self._stream.shown}: JetStream does not answer now (status {status})")
        self._news.set()

    async def fetch(self, most: int, wait_s: float) -> list[LogEntry]:
        """See `LogReader`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            self._ask(min(most, _MOST_AHEAD))
            if self._arrived:
                return await self._returned()
            left_s = deadline - loop.time()
            if left_s <= 0:
                await self._pass_over()
                return await self._returned() if self._arrived else []
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), min(left_s, _POLL_S))
            except TimeoutError:
                continue

    def _check(self) -> None:
        self._connection.check_open()
        if self._fault is not None:
            raise self._fault
        if self._requests and asyncio.get_running_loop().time() - self._heard_at > _SILENCE_S:
            raise LogUnreachable(f"{self._stream.shown} has said nothing for {_SILENCE_S:.0f} s")

    def _ask(self, most: int) -> None:
        """Keep the server sending, a batch ahead."""
        self._check()
        if sum(self._requests.values()) > most // 2:
            return
        self._asked += 1
        name = str(self._asked)
        if not self._requests:
            self._heard_at = asyncio.get_running_loop().time()
        self._requests[name] = most
        request = {
            "batch": most,
            "max_bytes": max(_AT_ONCE_BYTES, 2 * self._max_payload),
            "expires": int(_REQUEST_S * 1e9),
            "idle_heartbeat": int(_HEARTBEAT_S * 1e9),
        }
        body = json.dumps(request).encode()
        subject = f"{self._api}.CONSUMER.MSG.NEXT.{self._stream.name}.{self._consumer}"
        self._connection.write_soon(b"PUB %b %b.%b %d\r\n%b\r\n" % (
            subject.encode(), self._inbox.encode(), name.encode(), len(body), body,
        ))  # fmt: skip

    @property
    def _api(self) -> str:
        domain = self._target.options.get("domain")
        return f"$JS.{domain}.API" if domain else "$JS.API"

    @property
    def _max_payload(self) -> int:
        client: Any = self._connection.client
        return int(client.max_payload)

    async def _returned(self) -> list[LogEntry]:
        """Return what has arrived, after a check that nothing before or between was forgotten."""
        found, self._arrived = self._arrived, []
        self._heard_at = asyncio.get_running_loop().time()
        if self._fault is not None:  # what arrived before it may be counted wrongly
            raise self._fault
        foreign = next((at for at, entry in enumerate(found) if not entry.token), None)
        if foreign == 0:
            raise LogRefused(
                f"{self._stream.shown} has a message that no relay wrote, at sequence {found[0].sequence}: nobody else "
                f"may publish to {self._stream.name}.>; resume after a token beyond it",
                reason="foreign",
            )
        if foreign is not None:  # the next call refuses it
            found, self._arrived = found[:foreign], found[foreign:]
        first, last = found[0].sequence, found[-1].sequence
        is_whole = last - self.position == len(found)  # sequences only grow
        if not is_whole:
            oldest = (await self._look()).state.first_seq
            if not self._filters or oldest > self.position + 1:
                raise await self._lost(max(oldest, first) if self._filters else first)
        self.position = last
        return found

    async def _lost(self, oldest: int) -> HistoryLost:
        token = await self.token_at(oldest)
        return HistoryLost(
            f"{self._stream.shown} has forgotten entries after sequence {self.position:,}: rebuild from the "
            "collections, then resume after a token from before that",
            oldest_available=None if token is None else str(ResumeToken.parse(token).lsn),
        )

    async def _pass_over(self) -> None:
        """Advance over entries that are not wanted, or were forgotten after they were looked at."""
        if not self._filters:
            return
        state = (await self._look()).state
        last = state.last_seq
        if last == self.position:
            return
        if state.first_seq > self.position + 1:
            raise await self._lost(state.first_seq)
        with map_nats_errors(self._stream.shown):
            consumer = await self._connection.jetstream.consumer_info(self._stream.name, self._consumer)
        delivered = consumer.delivered
        is_done = not consumer.num_pending and (delivered is None or delivered.consumer_seq == self._number)
        if is_done and not self._arrived and self._fault is None:
            self.position = max(self.position, last)

    async def close(self) -> None:
        """See `LogReader`."""
        if self._connection.client is not None and not self._connection.lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._forget_consumer(), 1.0)
        await self._connection.close()


async def _ignore(_: Msg) -> None:
    """Do nothing: the parser has taken it."""
