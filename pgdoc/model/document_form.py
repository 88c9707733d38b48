"""How the documents of one collection are read and written."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from pgdoc.model.documents import Document, decode_stored
from pgdoc.model.json_codec import encode
from pgdoc.model.type_variables import M

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.model.value_codec import ValueCodec

__all__ = ["DocumentForm"]


class DocumentForm(Generic[M]):
    """How the documents of one collection are read and written.

    Attributes:
        read: returns the document of a row of a result.
        read_part: returns the same for a row of a partial read, whose data is a dict.
    """

    def __init__(self, collection: str, codec: ValueCodec) -> None:
        self._codec = codec
        make: Callable[..., Document[Any]] = Document.from_text
        read = partial(make, collection=collection, decode_text=codec.decode)
        self.read_part: Callable[..., Document] = read
        self.read: Callable[..., Document[M]] = read

    def encoded(self, data: Any) -> bytes:
        """Return the JSON text of data that is to be stored."""
        return encode(data, self._codec.encoder)

    def decoded(self, text: bytes | str | None) -> Any:
        """Decode one stored value."""
        return decode_stored(text, self._codec.decode)
