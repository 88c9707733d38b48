"""The JetStream stream of a log: its names, its configuration, and where it ends."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pgdoc.errors import InvalidInput, LogRefused
from pgdoc.relay.config import LogConfig
from pgdoc.relay.durations import number_of, seconds_of, size_option
from pgdoc.relay.extras import needing_extra
from pgdoc.relay.log import LogEnd
from pgdoc.relay.messages import is_of_snapshot, part_of_text
from pgdoc.relay.partitions import EVERY, encoded

with needing_extra("nats"):
    import nats.js.errors
    from nats.js.api import DiscardPolicy, StorageType, StreamConfig, StreamInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgdoc.relay.nats.connection import NatsConnection
    from pgdoc.relay.targets import LogTarget

__all__ = ["HEADER_ROOM", "NatsStream", "StreamEnd", "is_of_relay"]

HEADER_ROOM: Final = 16 << 10
"""How much of the server's max_payload is left for headers, which count."""

_CONFIG_KEY: Final = "pgdoc-log"
_EXISTS: Final = 10058
"""A stream of that name exists, with another configuration."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_DUPLICATE_WINDOW_S: Final = 0.1  # the least: message ids fence snapshots, and the server keeps them for that long


class StreamEnd(NamedTuple):
    """Where a stream ends.

    Attributes:
        message_id: of the last message, if that is of a snapshot.
    """

    end: LogEnd
    message_id: str | None = None


@lru_cache(maxsize=4096)
def _subject(stream: str, partition: int, collection: str) -> str:
    return f"{stream}.{'all' if partition == EVERY else partition}.{encoded(collection)}"


class NatsStream:
    """The stream that a URL names.

    Attributes:
        name: of the stream.
        shown: for messages.
        layout: how its subjects are named.
        has_ids: whether subjects end with the document's id.
    """

    def __init__(self, target: LogTarget, connection: NatsConnection) -> None:
        if not _NAME.fullmatch(target.name):
            raise InvalidInput(
                f"{target.shown} names no stream: add its name, of letters, digits, _ and -, such as nats://host/ORDERS"
            )
        self.name, self.shown = target.name, f'the stream "{target.name}" of {target.shown}'
        self._target, self._connection = target, connection
        self.has_ids = target.options.get("subjects", "partition") == "id"
        if target.options.get("when_full", "stop") not in ("stop", "forget"):
            raise InvalidInput(f"when_full in {target.shown} must be stop or forget")
        if target.options.get("subjects", "partition") not in ("partition", "id"):
            raise InvalidInput(f"subjects in {target.shown} must be partition or id")
        self.layout = "partition.collection.id" if self.has_ids else "partition.collection"

    def subject(self, partition: int, collection: str) -> str:
        """Return the subject of an event: `<stream>.<partition or all>.<collection>`, to which the id may be added."""
        return _subject(self.name, partition, collection)

    async def find(self) -> StreamInfo | None:
        """Return what the server knows of the stream; `None` if there is none."""
        with self._connection.asking(self.shown):
            try:
                return await self._connection.jetstream.stream_info(self.name)
            except nats.js.errors.NotFoundError:
                return None

    async def create(self, config: LogConfig) -> StreamInfo:
        """Create the stream, or return the one that another relay has created meanwhile."""
        target = self._target
        wanted = StreamConfig(
            name=self.name,
            subjects=[f"{self.name}.>"],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW if self._is_bounded else DiscardPolicy.OLD,
            num_replicas=number_of(target, "replicas", least=1, most=5) or 1,
            max_age=seconds_of(target, "max_age"),
            max_bytes=size_option(target, "max_bytes"),
            duplicate_window=_DUPLICATE_WINDOW_S,
            metadata={_CONFIG_KEY: config.text},
            description="written by pgdoc relay; nobody else may write",
        )
        jetstream = self._connection.jetstream
        with self._connection.asking(self.shown):
            try:
                return await jetstream.add_stream(wanted)
            except nats.js.errors.APIError as exc:
                if exc.err_code != _EXISTS:
                    raise
                return await jetstream.stream_info(self.name)  # the relay of another consumer came first

    @property
    def _is_bounded(self) -> bool:
        return self._target.options.get("when_full", "stop") == "stop"

    def config_of(self, info: StreamInfo) -> LogConfig:
        """Return what the relay wrote about the stream."""
        return LogConfig.parse((info.config.metadata or {}).get(_CONFIG_KEY), self.shown)

    def check(self, info: StreamInfo) -> None:
        """Refuse a stream whose settings could lose entries.

        Raises:
            LogRefused: it has some.
        """
        config = info.config
        if config.storage != StorageType.FILE:
            raise self._refused("keeps its entries in memory: make it anew with file storage")
        if config.subjects != [f"{self.name}.>"]:
            raise self._refused(f"has the subjects {config.subjects}: it must have {self.name}.> alone")
        if config.retention not in (None, "limits"):
            raise self._refused(f"has the retention {config.retention}: it must be limits")
        if (config.max_msgs_per_subject or -1) > 0:
            raise self._refused("keeps only some messages of each subject: max_msgs_per_subject must be -1")
        if config.no_ack or config.sealed:
            raise self._refused("is sealed, or acknowledges nothing")
        if config.discard_new_per_subject or (config.max_msg_size or -1) > 0:
            raise self._refused("refuses some messages: max_msg_size must be -1, and discard_new_per_subject false")
        when_full = self._target.options.get("when_full")
        if when_full is not None and (config.discard == DiscardPolicy.NEW) is not (when_full == "stop"):
            raise self._refused(
                f"discards {config.discard} messages when it is full, which is not when_full={when_full}"
            )
        if config.sources or config.mirror:
            raise self._refused("takes messages from other streams")

    def _refused(self, finding: str) -> LogRefused:
        return LogRefused(f"{self.shown} {finding}", reason="config")

    def identity(self, info: StreamInfo) -> str:
        """Return what tells the stream from one of the same name that is made later."""
        return f"{self.name}@{info.created}"

    async def end(self, info: StreamInfo) -> StreamEnd:
        """Return where the stream ends.

        Raises:
            LogRefused: the last message is not a relay's.
        """
        identity, sequence = self.identity(info), info.state.last_seq
        headers = await self._headers(sequence) if sequence else None
        if headers is None:
            return StreamEnd(LogEnd(sequence, None, None, identity))
        token, part = headers["Pgdoc-Token"], part_of_text(headers.get("Pgdoc-Part"))
        before = None
        if part is not None and is_of_snapshot(token) and sequence > part.number:
            earlier = await self._headers(sequence - part.number)
            before = None if earlier is None else earlier["Pgdoc-Token"]
        end = LogEnd(sequence, token, part, identity, before)
        return StreamEnd(end, headers.get("Nats-Msg-Id") if is_of_snapshot(token) else None)

    async def _headers(self, sequence: int) -> dict[str, str] | None:
        """Return the headers of a message; `None` if it is not kept."""
        with self._connection.asking(self.shown):
            try:
                found = await self._connection.jetstream.get_msg(self.name, sequence)
            except nats.js.errors.NotFoundError:
                return None
        headers = found.headers or {}
        if not is_of_relay(headers):
            raise LogRefused(
                f"{self.shown} has a message that no relay wrote, at sequence {sequence}: nobody else may publish to "
                f"{self.name}.>; delete the stream, or name another",
                reason="foreign",
            )
        return headers


def is_of_relay(headers: Mapping[str, str]) -> bool:
    """Return whether a message with these headers is one that a relay may have written."""
    try:
        part_of_text(headers.get("Pgdoc-Part"))
    except ValueError:
        return False
    return bool(headers.get("Pgdoc-Token"))
