# Written by .ci/twins.py from pgdoc/_async/validation.py: change that file, and run it.
"""Find the documents of a collection that do not conform to its JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc._sync.reads import Reads
from pgdoc.crud.validation import check_json_schema
from pgdoc.errors import SchemaViolation, UnreadableDocument
from pgdoc.model.documents import to_be_decoded_by
from pgdoc.model.json_codec import decode
from pgdoc.model.type_variables import M

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["Validation"]


class Validation(Reads[M]):
    """The reads of a collection, and its validation, which it inherits."""

    def validate(self, json_schema: Mapping[str, Any] | None = None) -> Generator[SchemaViolation]:
        """Yield an error for each document that does not conform, in bounded memory; it is not raised.

        Documents that were there before the schema stay until they are written again, and some rules are not checked
        for SQL and for the results of updates. This reads all documents, as `find` does.

        Args:
            json_schema: the schema to compare with; `None` for that of the collection.

        Raises:
            InvalidInput: `json_schema` is not a schema.
            MissingExtra: this needs the extra `validation`.
        """
        schema = check_json_schema(json_schema) or self._table.json_schema()
        if schema is None:
            return
        for document in self.find():
            try:
                found = schema.find(self._table.subject, document.id, to_be_decoded_by(decode, document).data)
            except UnreadableDocument as exc:
                found = SchemaViolation(str(exc), document_id=document.id)
            if found is not None:
                yield found
