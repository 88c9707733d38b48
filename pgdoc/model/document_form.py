"""How the documents of one collection are read and written."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from pgdoc.errors import InvalidModel, ModelViolation
from pgdoc.model.documents import Document, TypedDocument, decode_stored
from pgdoc.model.json_codec import encode
from pgdoc.model.raw_json import RawJson
from pgdoc.model.short_repr import short_repr
from pgdoc.model.type_variables import M
from pgdoc.model.typed.reader import reader_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.model.ids import DocumentId
    from pgdoc.model.typed.reader import ModelReader
    from pgdoc.model.value_codec import ValueCodec

__all__ = ["DocumentForm"]


class DocumentForm(Generic[M]):
    """How the documents of one collection are read and written.

    Attributes:
        read: returns the document of a row of a result.
        read_part: returns the same for a row of a partial read, whose data is a dict.
        codec: for the events of the collection.
        reader: reads the data as its model, if it has one.
    """

    def __init__(self, collection: str, subject: str, codec: ValueCodec, model: Any = None) -> None:
        self._subject, self._encoder, self._decode = subject, codec.encoder, codec.decode
        self.reader: ModelReader[M] | None = None
        make: Callable[..., Document[Any]] = Document.from_text
        read = partial(make, collection=collection, decode_text=codec.decode)
        self.codec = codec
        self.read_part: Callable[..., Document] = read
        self.read: Callable[..., Document[M]] = read
        if model is not None:
            self.reader = reader_of(model, codec.decode)
            self.codec = replace(codec, decode=self.reader)
            typed: Callable[..., Document[Any]] = TypedDocument.from_text
            self.read = partial(typed, collection=collection, decode_text=self.reader)

    def encoded(self, data: Any, key: DocumentId | None = None) -> bytes:
        """Return the JSON text of data that is to be stored, under an id if the call names one.

        What is not an instance of the model is read as one, which is what is stored.

        Raises:
            InvalidDocument: the data can't be stored.
            ModelViolation: it is not valid for the model.
        """
        text, reader = encode(data, self._encoder), self.reader
        if reader is None or isinstance(data, reader.classes):
            return text
        try:
            read: Any = reader.read(text)
        except InvalidModel as exc:
            document = "a document" if key is None else f"document {short_repr(key)}"
            raise ModelViolation(
                f"{document} of {self._subject}: {exc}. Correct the data: nothing was sent",
                path=exc.path,
                model=exc.model,
                document_id=None if key is None else str(key),
            ) from exc.__cause__
        return text if isinstance(data, RawJson) else encode(read, self._encoder)

    def decoded(self, text: bytes | str | None) -> Any:
        """Decode one stored value."""
        return decode_stored(text, self._decode)
