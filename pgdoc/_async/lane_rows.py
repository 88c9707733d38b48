"""The rows of one handler: its position, and its dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from pgdoc._async.checkpoint import checkpoint
from pgdoc.changes.events import from_json
from pgdoc.consumers.handlers import begin_handler
from pgdoc.database.errors import map_error
from pgdoc.errors import ConsumerLost, InvalidEvent
from pgdoc.model.tokens import Mark
from pgdoc.runtime.primitives import async_call
from pgdoc.sql import statement
from pgdoc.workers.failures import fact, text_of, traceback_of
from pgdoc.workers.parking import Parked, parking_key

if TYPE_CHECKING:
    from pgdoc._async.store import AsyncStore
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.changes.events import ChangeEvent
    from pgdoc.consumers.consumer import Consumer
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.workers.memory import LaneMemory
    from pgdoc.workers.registration import Registration

__all__ = ["AsyncLaneRows", "DueLetter", "mark_after"]

NOT_STORED = (
    "the event could not be stored, so the worker can't try it again: do by hand what is missing, and drop the letter"
)


class DueLetter(NamedTuple):
    """A dead letter that is to be tried again."""

    id: int
    collection: str
    document_id: str | None
    token: str
    event: str | None
    attempts: int

    def read(self, decode: JsonDecoder | None) -> ChangeEvent:
        """Return the event, whose data `decode` decodes, or raise `InvalidEvent`."""
        if self.event is None:
            raise InvalidEvent(NOT_STORED)
        return from_json(self.event, decode)


def mark_after(event: ChangeEvent) -> Mark:
    """Return how far a handler has come that has processed the event."""
    token = event.resume_token
    return Mark.at(token.position, token.progress)


class AsyncLaneRows:
    """The rows of one handler, while this process owns its consumer.

    Args:
        is_sole: whether the handler has its consumer for itself. Its position is then that of the consumer.

    Attributes:
        skips_to: events up to this position are processed already.
    """

    def __init__(
        self, store: AsyncStore, registration: Registration, consumer: Consumer, memory: LaneMemory, *, is_sole: bool
    ) -> None:
        self._store = store
        self._memory = memory
        self._registration = registration
        self._consumer = consumer
        self._is_sole = is_sole
        epoch, holder = consumer.claim or (0, None)
        self._claimed = {"name": consumer.name, "handler": registration.name, "epoch": epoch, "holder": holder}
        self.skips_to: tuple[int, ...] = ()
        self._last: list[int] = []  # as it is stored
        self._saving: list[int] = []

    async def begin(self) -> int:
        """Store this process's claim; return how often in a row a process has begun at the same position."""
        consumer, claim = self._consumer, self._consumer.claim
        if claim is None:
            raise self.lost()
        source = await self._store._streams.source_of_consumers()  # noqa: SLF001 (one package)
        at = tuple(consumer.begun_at)
        again = self._memory.has_begun
        row = await async_call(begin_handler, source, consumer.name, claim, self._registration.name, at, again=again)
        self._memory.has_begun = True
        self.skips_to, self._last = row.place, list(row.place)
        return row.begun_times

    async def end(self) -> None:
        """Note that this process ends in good order."""
        await self._fetch("end")

    async def save(self, tx: AsyncTransaction, mark: Mark) -> None:
        """Store in a transaction that everything up to `mark` is processed.

        Raises:
            ConsumerLost: another process has taken the consumer over, or the position is stored already.
        """
        if self._is_sole:
            await checkpoint(tx, self._consumer, mark)
            return
        place, timeline = [int(number) for number in mark.position], self._consumer.ids[1]
        saved = await self._fetch_in(tx, "save", place=place, last=self._last, timeline=timeline)
        if not saved:
            raise self.lost()
        self._saving = place

    def note_saved(self) -> None:
        """Note that the transaction of the last `save` has committed."""
        if not self._is_sole:
            self._last = self._saving

    async def is_stored(self, mark: Mark) -> bool:
        """Whether the position is stored, after a commit whose end nobody knows."""
        rows = await self._fetch("stored")
        if not rows:
            raise self.lost()
        own, of_consumer = rows[0]
        stored = of_consumer if self._is_sole else own
        if not self._is_sole:
            self._last = list(own)
        return tuple(stored) >= mark.position

    async def note_try(self, event: ChangeEvent) -> int:
        """Note that an event is tried alone; return how many processes have tried it in a row."""
        return await self._note_try([int(number) for number in mark_after(event).position])

    async def note_letter(self, letter: DueLetter) -> int:
        """Note that a letter is tried again; return how many processes have tried it in a row."""
        return await self._note_try([0, letter.id])  # no event is at 0

    async def _note_try(self, place: list[int]) -> int:
        rows = await self._fetch("note_try", place=place, more=int(self._memory.tried != place))
        if not rows:
            raise self.lost()
        self._memory.tried = place
        return int(rows[0][0])

    async def put_letter(
        self, tx: AsyncTransaction, event: ChangeEvent, error: BaseException | None = None, attempts: int = 0
    ) -> None:
        """Store a letter in the transaction that stores the position: dead if there is an error, else parked."""
        collection, document_id = parking_key(event)
        params = {
            "event_type": fact(event, "event_type"),
            "collection": collection,
            "document_id": document_id,
            "token": str(event.resume_token),
            "error": None if error is None else text_of(error),
            "traceback": None if error is None else traceback_of(error),
            "attempts": attempts,
            "changed_at": fact(event, "timestamp"),
        }
        try:
            text: str | None = event.to_json().decode()
        except Exception:  # noqa: BLE001 (the row can't be decoded, or the handler changed it: the token says which)
            text = None
        if text is not None:
            try:
                async with tx.connection.transaction():
                    await self._fetch_in(tx, "put", **params, event=text)
            except psycopg.DataError:  # PostgreSQL can't store it, for example because it is too large
                text = None
            except psycopg.OperationalError as exc:
                if exc.sqlstate != "54000":  # program_limit_exceeded
                    raise
                text = None
        if text is None:
            await self._fetch_in(tx, "put", **params, event=None)

    async def parked(self) -> Parked:
        """Return the documents that have letters."""
        return Parked((collection, document_id) for collection, document_id in await self._fetch("parked"))

    async def release(self) -> None:
        """Make due what no dead letter holds back any more."""
        await self._fetch("release", parks=self._registration.on_dead == "park")

    async def next_due(self, after: int) -> DueLetter | None:
        """Return the next letter that is to be tried again, after the one with this id."""
        rows = await self._fetch("next_due", after=after)
        return DueLetter(*rows[0]) if rows else None

    async def remove_letter(self, tx: AsyncTransaction, letter: DueLetter) -> bool:
        """Delete a letter in the transaction of its effect; return whether it was still there.

        Raises:
            ConsumerLost: another process has taken the consumer over.
        """
        if not await self._fetch_in(tx, "lock"):
            raise self.lost()
        if not await self._fetch_in(tx, "remove", id=letter.id):
            return False
        await self._fetch_in(tx, "release_next", collection=letter.collection, document_id=letter.document_id)
        return True

    async def fail_letter(self, letter: DueLetter, error: BaseException) -> None:
        """Note that a letter has failed once more."""
        await self._fetch(
            "fail",
            id=letter.id,
            error=text_of(error),
            traceback=traceback_of(error),
            parks=self._registration.on_dead == "park",
            collection=letter.collection,
            document_id=letter.document_id,
        )
        self._memory.tried = []

    def lost(self) -> ConsumerLost:
        """Return the error for a handler that this process may not run any more."""
        return ConsumerLost(
            f"{self._registration.title}: another process has taken the consumer over, or it was dropped; its "
            "transaction rolls back"
        )

    async def _fetch(self, block: str, **params: Any) -> list[tuple[Any, ...]]:
        query, connections = statement("workers", block).encode(), self._store._connections  # noqa: SLF001
        try:
            return await connections.fetch(query, self._claimed | params)
        except psycopg.Error as exc:
            raise map_error(exc, self._registration.title, rights=connections.caller.to_have_workers()) from exc

    async def _fetch_in(self, tx: AsyncTransaction, block: str, **params: Any) -> list[tuple[Any, ...]]:
        query = statement("workers", block).encode()
        async with tx._session.lend("worker") as connection:  # noqa: SLF001 (one package)
            cursor = await connection.execute(query, self._claimed | params, binary=True)
            return await cursor.fetchall()
