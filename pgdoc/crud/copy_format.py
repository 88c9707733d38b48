"""Encode documents as rows of PostgreSQL's binary COPY format (reference page of COPY, Binary Format)."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import TYPE_CHECKING, Any

from pgdoc.crud.sizes import oversized
from pgdoc.errors import DatabaseError, InvalidDocument
from pgdoc.model.ids import check_id
from pgdoc.model.json_codec import encode
from pgdoc.model.short_repr import short_repr
from pgdoc.model.sizes import MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgdoc.crud.validation import JsonSchema
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.values import Encoder

__all__ = ["HEADER", "TRAILER", "CopyRows"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
TRAILER = b"\xff\xff"
_TWO_FIELDS = Struct(">hi")  # the number of fields, the length of the first
_JSONB = Struct(">ib")  # the length of the field, the version of jsonb's binary form
_JSONB_VERSION = 1
_BLOCK_BYTES = 256 << 10


class CopyRows:
    """Iterates over pairs of id and data, read on demand, as encoded blocks of whole rows.

    `HEADER`, one or more blocks and `TRAILER` make a COPY. `count` is the number of documents read so far.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[DocumentId, Any]],
        progress: Callable[[int], object] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        if not isinstance(pairs, Iterable):
            raise InvalidDocument(
                f"insert_many needs pairs of id and data, such as documents.items(), got {short_repr(pairs)}"
            )
        self._pairs = iter(pairs)
        self._progress = progress
        self._encoder = encoder
        self.count = 0
        self._subject = "the collection"
        self._max_size: int | None = None
        self._schema: JsonSchema | None = None

    def __iter__(self) -> Iterator[bytes]:
        block = bytearray()
        for pair in self._pairs:
            block += self._row(pair)
            self.count += 1
            if len(block) >= _BLOCK_BYTES:
                yield bytes(block)
                self._report()
                block.clear()
        if block:
            yield bytes(block)
        self._report()

    def check_sizes(self, subject: str, max_size: int | None) -> None:
        """Raise `DocumentTooLarge` for documents beyond the limit of a collection, as they are read."""
        self._subject, self._max_size = subject, max_size

    def check_schema(self, schema: JsonSchema | None) -> None:
        """Raise `SchemaViolation` for documents that do not conform, as they are read."""
        self._schema = schema

    def check_stored(self, count: int) -> None:
        """Raise `DatabaseError` unless the server stored `count` documents, which is all that were read."""
        if count != self.count:
            raise DatabaseError(
                f"{self.count - count} of {self.count} documents were not written to {self._subject}, because a "
                "trigger of the table drops rows; nothing was stored: change the trigger, or leave those documents out"
            )

    def _row(self, pair: tuple[DocumentId, Any]) -> bytes:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InvalidDocument(
                f"insert_many needs pairs of id and data, such as documents.items(), got {short_repr(pair)} among them"
            )
        document_id, data = pair
        name = check_id(document_id)
        key = name.encode()
        try:
            text = encode(data, self._encoder)
        except InvalidDocument as exc:
            raise InvalidDocument(f"document {name!r}: {exc}", path=exc.path) from exc
        if len(text) > (self._max_size or MOST):
            raise oversized(self._subject, name, len(text), self._max_size)
        if self._schema is not None:
            self._schema.check(self._subject, name, text)
        return b"".join((_TWO_FIELDS.pack(2, len(key)), key, _JSONB.pack(len(text) + 1, _JSONB_VERSION), text))

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.count)
