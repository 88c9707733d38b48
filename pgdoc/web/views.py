"""What one subscriber sees: the application's function, applied to each event or document."""

from __future__ import annotations

import asyncio
import copy
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pgdoc.changes.events import ChangeEvent
from pgdoc.changes.value_json import encode_json
from pgdoc.errors import UnreadableDocument
from pgdoc.model.documents import Document
from pgdoc.web.entries import (
    ChangeEntry,
    ChangesEntry,
    DocumentsEntry,
    ValueEntry,
    change_json,
    document_json,
    event_json,
    json_array,
    value_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.web.entries import SourceEntry
    from pgdoc.web.messages import MessageForm

__all__ = ["SubscriberView", "Viewer"]

SubscriberView: TypeAlias = "Callable[[Any], Any]"
"""A function, or coroutine function, of an event or document.

It returns `True` for what the subscriber may see as it is, `None` or `False` for what is hidden, or what to send
instead: an event or document, or any value that JSON can represent.
"""


_TURN: Final = 100
"""After so many documents of a list, others have their turn."""


class Viewer:
    """Applies the function of one subscriber to its entries.

    Of a live query, it remembers which documents of the list the subscriber sees, to count indexes among these only.
    """

    def __init__(self, view: SubscriberView | None) -> None:
        self._view = view
        self._shown: list[bool] = []  # of each document in the list of the live query

    @property
    def hides(self) -> bool:
        """Whether it may hide something."""
        return self._view is not None

    async def text(self, entry: SourceEntry, form: MessageForm) -> bytes | None:
        """Return the entry as the subscriber sees it; `None` if it sees nothing of it."""
        if self._view is None:
            return entry.text(form)
        if isinstance(entry, ChangeEntry):
            return await self._text_of_change(entry, form)
        data = None
        if isinstance(entry, DocumentsEntry):
            data = await self._documents(entry)
        elif isinstance(entry, ChangesEntry):
            data = await self._changes(entry)
        elif isinstance(entry, ValueEntry):
            return await self._text_of_value(entry, form)
        return None if data is None else form(entry.message(data))

    async def _text_of_change(self, entry: ChangeEntry, form: MessageForm) -> bytes | None:
        event = entry.twin()
        seen = await self._look(event)
        if seen is True:
            return entry.text(form)
        if seen is None or seen is False:
            return None
        data = event_json(seen) if isinstance(seen, ChangeEvent) else value_json(seen)
        return None if data is None else form(entry.message(data))

    async def _text_of_value(self, entry: ValueEntry, form: MessageForm) -> bytes | None:
        seen = await self._look(copy.deepcopy(entry.shown))
        if seen is True:
            return entry.text(form)
        return None if seen is None or seen is False else form(entry.message(encode_json(seen)))

    async def _look(self, subject: Any) -> Any:
        assert self._view is not None  # noqa: S101 (its callers have checked)
        try:
            seen = self._view(subject)
            return await seen if inspect.isawaitable(seen) else seen
        except UnreadableDocument:  # hidden: a browser that reconnects would meet it again and again
            return None

    async def _document(self, document: Document) -> bytes | None:
        seen = await self._look(copy.deepcopy(document))  # the live query goes on with its own
        if seen is True:
            return document_json(document)
        if seen is None or seen is False:
            return None
        return document_json(seen) if isinstance(seen, Document) else value_json(seen)

    async def _documents(self, entry: DocumentsEntry) -> bytes:
        found = []
        for number, each in enumerate(entry.documents):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)  # a view that awaits nothing would keep everybody else waiting
            found.append(await self._document(each))
        self._shown = [each is not None for each in found]
        return json_array([each for each in found if each is not None])

    async def _changes(self, entry: ChangesEntry) -> bytes | None:
        found = []
        for change in entry.changes:
            was_shown, old_index = self._leave(change.old_index)
            is_removed = change.new_index is None
            document = None if is_removed and not was_shown else await self._document(change.document)
            is_shown = document is not None and not is_removed
            new_index = self._enter(change.new_index, is_shown=is_shown)
            if document is None and was_shown:  # hidden from now on: nothing of it may be shown
                document = encode_json({"id": change.document.id})
            if document is not None and (was_shown or is_shown):
                kind = "modified" if was_shown and is_shown else "added" if is_shown else "removed"
                found.append(change_json(kind, document, old_index, new_index))
        return json_array(found) if found else None

    def _leave(self, index: int | None) -> tuple[bool, int | None]:
        """Take a document out of the list; return whether the subscriber saw it, and at which index."""
        if index is None or not self._shown.pop(index):
            return False, None
        return True, sum(self._shown[:index])

    def _enter(self, index: int | None, *, is_shown: bool) -> int | None:
        if index is None:
            return None
        self._shown.insert(index, is_shown)
        return sum(self._shown[:index]) if is_shown else None
