"""The records beside a log in JetStream: a stream of its own, which keeps the last message of each subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import LogRefused, LogUnreachable
from pgdoc.relay.asking import ask_each
from pgdoc.relay.durations import number_of
from pgdoc.relay.extras import needing_extra
from pgdoc.relay.log import GroupRecord
from pgdoc.relay.nats.connection import NatsConnection
from pgdoc.relay.nats.reader import READER_OPTIONS
from pgdoc.relay.nats.stream import NatsStream

with needing_extra("nats"):
    import nats.errors
    import nats.js.errors
    from nats.js.api import RetentionPolicy, StorageType, StreamConfig

if TYPE_CHECKING:
    from pgdoc.relay.targets import LogTarget

__all__ = ["NatsRecords"]

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_WRONG_REVISION: Final = (10071, 10164)
_DELETED: Final = b""  # the body of a message that stands for a deleted record


class NatsRecords:
    """See `LogRecords`. The records of the stream `ORDERS` are in the stream `ORDERS-groups`."""

    def __init__(self, target: LogTarget) -> None:
        target.check_options(READER_OPTIONS)
        self._target = target
        self._connection = NatsConnection(target)
        log = NatsStream(target, self._connection)
        self._name, self._shown = f"{log.name}-groups", f'the stream "{log.name}-groups" of {target.shown}'

    async def open(self, *, creates: bool = True) -> bool:
        """See `LogRecords`."""
        await self._connection.open_whole()
        with self._connection.asking(self._shown):
            try:
                info = await self._connection.jetstream.stream_info(self._name)
            except nats.js.errors.NotFoundError:
                if creates:
                    await self._create()
                return creates
        if info.config.max_msgs_per_subject != 1 or info.config.subjects != [f"{self._name}.>"]:
            raise LogRefused(f"{self._shown} was not made by pgdoc: delete or rename it", reason="foreign")
        return True

    async def _create(self) -> None:
        log = await self._connection.jetstream.stream_info(self._target.name)
        wanted = StreamConfig(
            name=self._name,
            subjects=[f"{self._name}.>"],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            max_msgs_per_subject=1,
            num_replicas=number_of(self._target, "replicas", least=1, most=5) or log.config.num_replicas,
            description="where the groups that read the log are",
        )
        await self._connection.jetstream.add_stream(wanted)

    async def read(self, prefix: str) -> dict[str, GroupRecord]:
        """See `LogRecords`."""
        self._connection.check_open()
        head = f"{self._name}."
        with self._connection.asking(self._shown):
            info = await self._connection.jetstream.stream_info(
                self._name, subjects_filter=f"{head}{prefix}>" if prefix.endswith(".") else f"{head}>"
            )
            names = [each[len(head) :] for each in (info.state.subjects or {}) if each.startswith(head + prefix)]
            found = await ask_each(self._last, names)
        return {
            name: record
            for name, record in zip(names, found, strict=True)
            if record is not None and record.value != _DELETED
        }

    async def _last(self, key: str) -> GroupRecord | None:
        """Return the last message of a record, also one that stands for a deleted record."""
        try:
            found = await self._connection.jetstream.get_last_msg(self._name, f"{self._name}.{key}")
        except nats.js.errors.NotFoundError:
            return None
        return None if found.seq is None else GroupRecord(found.data or _DELETED, found.seq)

    async def write(self, key: str, value: bytes, revision: int) -> int | None:
        """See `LogRecords`."""
        written = await self._write(key, value, revision)
        if written is not None or revision:
            return written
        # Who deleted it may have ended before the server had forgotten it, or lack the right to purge.
        with self._connection.asking(self._shown):
            left = await self._last(key)
        return None if left is None or left.value != _DELETED else await self._write(key, value, left.revision)

    async def _write(self, key: str, value: bytes, revision: int) -> int | None:
        self._connection.check_open()
        with self._connection.asking(self._shown):
            try:
                stored = await self._connection.jetstream.publish(
                    f"{self._name}.{key}", value, stream=self._name, headers={_EXPECTED: str(revision)}
                )
            except nats.js.errors.APIError as exc:
                if exc.err_code in _WRONG_REVISION:
                    return None
                raise
            except nats.js.errors.NoStreamResponseError as exc:
                raise LogUnreachable(f"{self._shown} does not answer: it may have no leader now") from exc
        return stored.seq

    async def delete(self, key: str, revision: int) -> bool:
        """See `LogRecords`."""
        written = await self._write(key, _DELETED, revision)
        if written is None:
            return False
        with self._connection.asking(self._shown):
            jetstream: Any = self._connection.jetstream
            await jetstream.purge_stream(self._name, seq=written + 1, subject=f"{self._name}.{key}")
        return True

    async def close(self) -> None:
        """See `LogRecords`."""
        await self._connection.close()
