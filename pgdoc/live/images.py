"""An image of a row, as the states of live queries read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgdoc.errors import UnreadableDocument
from pgdoc.model.documents import Document, to_be_decoded_by
from pgdoc.model.json_codec import decode_comparable
from pgdoc.query.filters.match import compare
from pgdoc.query.filters.projection import project

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.query.filters.projection import Projection

__all__ = ["RowImage", "copy_of"]

_UNREAD: Final[Any] = object()


class RowImage:
    """A document, and its data with exact numbers, decoded once for all live queries.

    Attributes:
        document: never accessed here, so that it has the text that the server sent. A handle gives out a copy of it.
        id: that of the document.
    """

    __slots__ = ("_subject", "document", "id")

    def __init__(self, document: Document[Any]) -> None:
        self.document = document
        self.id = document.id
        self._subject: Any = _UNREAD

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @property
    def subject(self) -> Any:
        """What a filter's matcher takes. Of a document that Python can't read, only the id can be tested."""
        subject = self._subject
        if subject is _UNREAD:
            try:
                data = to_be_decoded_by(decode_comparable, self.document).data
            except (UnreadableDocument, RecursionError) as exc:
                subject = _Unreadable(self.id, exc)
            else:
                subject = (self.id, data)
            self._subject = subject
        return subject

    @property
    def data(self) -> Any:
        """The data, with exact numbers; never change it.

        Raises:
            UnreadableDocument: Python can't read it.
        """
        return self.subject[1]

    def release(self) -> None:
        """Forget the decoded data, which takes more memory than its text. It is decoded again where it is needed."""
        self._subject = _UNREAD

    def passes(self, match: Callable[[Any], bool]) -> bool:
        """Return whether the document matches; `True` if that can't be told, as in a stream's `where`."""
        try:
            return match(self.subject)
        except Exception:  # noqa: BLE001 (one document or filter must not end the queries of others)
            return True

    def is_state_of(self, other: RowImage) -> bool:
        """Return whether both are the same state of one document."""
        if self is other:
            return True
        one, two = self.document, other.document
        if one.__class__ is not two.__class__ or _version_of(one) != _version_of(two):
            return False
        text = _text_of(one)
        if one.__class__ is Document and text is not None and text == _text_of(two):
            return True
        try:
            return bool(compare(self.data, other.data) == 0) and _columns_of(one) == _columns_of(two)
        except Exception:  # noqa: BLE001 (for unreadable data, the texts decide)
            return _text_of(one) == _text_of(two)


class _Unreadable:
    """The subject of a document whose data can't be read: a filter that needs it gets the error."""

    __slots__ = ("_exc", "_id")

    def __init__(self, document_id: str, exc: Exception) -> None:
        self._id, self._exc = document_id, exc

    def __getitem__(self, index: int) -> str:
        if index == 0:
            return self._id
        raise UnreadableDocument(f"document {self._id!r} can't be read: {self._exc}") from self._exc


def _version_of(document: Document[Any]) -> int | None:
    return document.version if document.__class__ is Document else None


def _columns_of(document: Document[Any]) -> Any:
    text = getattr(document, "columns_text", None)
    return None if text is None else decode_comparable(text)


def _text_of(document: Document[Any]) -> bytes | None:
    text: bytes | str | None = document.__dict__.get("_data")
    return text.encode() if isinstance(text, str) else text


def copy_of(document: Document[Any], projection: Projection | None = None) -> Document[Any]:
    """Return the document to give out: a copy with data of its own, or with what a projection leaves of it.

    A document of a `RowImage` is shared by all that follow it, and users may change the data of theirs.

    Raises:
        UnreadableDocument: there is a projection, and Python can't read the data.
    """
    copy = object.__new__(document.__class__)
    state = copy.__dict__
    state.update(document.__dict__)
    if projection is not None:
        state["data"] = project(projection, copy.data, copy.id)
        state["_projection"] = projection
    return copy
