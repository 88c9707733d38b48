"""Errors of arguments, documents and collections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgdoc.errors.base import PgdocError


class InvalidInput(PgdocError, ValueError):  # noqa: N818
    """An argument is not valid: correct it. Nothing was sent to the server.

    Attributes:
        path: the dotted path of the fault within the argument; `None` if there is none.
    """

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class InvalidName(InvalidInput):
    """The name of a collection, schema, index or consumer is not valid, or the new name of a collection is taken."""


class InvalidDocument(InvalidInput):
    """An id, a document's data or metadata can't be stored: it must be valid JSON, within pgdoc's limits."""


class InvalidEvent(InvalidInput):
    """The text is not the JSON of an event: use what `event.to_json()` returns."""


class DocumentTooLarge(InvalidDocument):
    """A document has more JSON text than its collection takes, or than PostgreSQL can print: split it.

    pgdoc raises it before sending the data, or the server does, also for the result of an update; nothing was changed.
    `Collection.set_limits` sets the limit. The text counts as PostgreSQL prints it, with a space after each comma and
    colon.

    Attributes:
        document_id: the id; `None` if the server does not report it.
        size: the bytes of the text; `None` if the server found the fault.
        max_size: the limit of the collection; `None` if it has none, or if the server found the fault.
    """

    def __init__(
        self, message: str, *, document_id: str | None = None, size: int | None = None, max_size: int | None = None
    ) -> None:
        super().__init__(message)
        self.document_id = document_id
        self.size = size
        self.max_size = max_size


class SchemaViolation(InvalidDocument):
    """A document does not conform to the JSON Schema of its collection: correct it, or change the schema.

    pgdoc raises it before sending the data, or the server does, for the result of an update; nothing was changed.

    Attributes:
        document_id: the id; `None` if neither the call nor the server names it.
        path: the dotted path of the value; empty for the whole data, `None` if the server found the fault.
        rule: the keyword of the schema that it breaks, such as `minimum`; `None` if the server found the fault.
        value: the value at the path; `None` if the server found the fault.
    """

    def __init__(
        self,
        message: str,
        *,
        document_id: str | None = None,
        path: str | None = None,
        rule: str | None = None,
        value: Any = None,
    ) -> None:
        super().__init__(message, path=path)
        self.document_id = document_id
        self.rule = rule
        self.value = value


class InvalidFilter(InvalidInput):
    """The filter is not valid: see the reference of query filters.

    Attributes:
        operator: the operator at fault; `None` if there is none.
    """

    def __init__(self, message: str, *, path: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, path=path)
        self.operator = operator


class InvalidUpdate(InvalidInput):
    """The update is not valid, or does not fit the stored document; nothing was changed.

    Attributes:
        operator: the operator at fault; `None` if there is none.
    """

    def __init__(self, message: str, *, path: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, path=path)
        self.operator = operator


class CollectionNotFound(PgdocError):  # noqa: N818
    """The collection does not exist and the call does not create it, or a table of that name is not a collection.

    Create it with `store.create_collection()`, use another name, or make the table a collection with
    `SELECT pgdoc.register('docs.orders')`. No call reads or changes a table that is not a collection.
    """


class NotACollection(PgdocError, AttributeError):  # noqa: N818
    """The row of a watched table has no version and no times; only the documents of collections have them."""


class DuplicateDocument(PgdocError):  # noqa: N818
    """A document with this id, or with these values of a unique index, already exists: replace or update it.

    Attributes:
        document_id: the id that exists; `None` if it is not the id that exists, or if the server does not report it.
        index: the unique index, or the constraint of the table, that refuses the document; `None` for the id. In an
            aborted transaction, the name may be cut to 22 bytes.
        paths: the paths of the index; empty for the id, and if the server does not report them.
        values: the values at these paths that exist in another document; `None` if the server does not report them, and
            for objects and long values. A whole number has no decimal point.
    """

    def __init__(
        self,
        message: str,
        *,
        document_id: str | None = None,
        index: str | None = None,
        paths: tuple[str, ...] = (),
        values: tuple[Any, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.document_id = document_id
        self.index = index
        self.paths = paths
        self.values = values


class VersionConflict(PgdocError):  # noqa: N818
    """The document is not at the version in `if_version`: read it again, and repeat the change. Nothing was changed.

    Attributes:
        found_version: the stored version; `None` if there is no document.
    """

    def __init__(self, message: str, *, found_version: int | None) -> None:
        super().__init__(message)
        self.found_version = found_version


class BulkError(PgdocError):
    """A write of a bulk failed, so nothing of the bulk was stored: handle the `__cause__`, the error of that write.

    Attributes:
        index: the number of the write, counted from 0 in the order of the calls.
        collection: the name of its collection.
        document_id: the id in the call; `None` if the call has a filter instead.
    """

    def __init__(self, message: str, *, index: int, collection: str, document_id: str | None) -> None:
        super().__init__(message)
        self.index = index
        self.collection = collection
        self.document_id = document_id


@dataclass(frozen=True, slots=True)
class BulkFailure:
    """A write of an unordered bulk that failed.

    Attributes:
        index: the number of the write, counted from 0 in the order of the calls.
        operation: the name of the call, such as `insert`.
        collection: the name of its collection.
        document_id: the id in the call; `None` if the call has a filter instead.
        error: why it failed.
    """

    index: int
    operation: str
    collection: str
    document_id: str | None
    error: PgdocError


class BulkIncomplete(PgdocError):  # noqa: N818
    """Some writes of an unordered bulk failed; all others are stored: look at `failures`, and at the bulk's `result`.

    Attributes:
        failures: the writes that failed, in the order of their calls.
    """

    def __init__(self, message: str, *, failures: tuple[BulkFailure, ...]) -> None:
        super().__init__(message)
        self.failures = failures


class UnreadableDocument(PgdocError):  # noqa: N818
    """The stored data can't be read in Python, which happens only if it was written by SQL: change it with SQL.

    It has a number of more than 4,300 digits, is nested too deep, has a time out of range, or has more than 1 GB of
    JSON text, which PostgreSQL can't print. It is raised when the field is read: calls and streams deliver such a
    document, and go on with the next one.

    Attributes:
        collection: the name of the collection; `None` if it is not known.
        document_id: the id; `None` if it is not known.
    """

    def __init__(self, message: str, *, collection: str | None = None, document_id: str | None = None) -> None:
        super().__init__(message)
        self.collection = collection
        self.document_id = document_id


class InvalidModel(UnreadableDocument):
    """The data of a document is not valid for the model of its typed collection: correct the data, or the model.

    It is raised when `data` is read: calls and streams deliver such a document, and go on with the next one. Everything
    else of the document can be read, as `document["status"]`. Its `__cause__` is the error of the model's library.

    Attributes:
        path: the dotted path of the first fault in the data; empty for the whole data.
        model: the name of the model.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        model: str = "",
        collection: str | None = None,
        document_id: str | None = None,
    ) -> None:
        super().__init__(message, collection=collection, document_id=document_id)
        self.path: str = path
        self.model = model


class ModelViolation(InvalidModel, InvalidDocument):
    """The data that a call on a typed collection was given is not valid for its model: correct it.

    Nothing was sent. `document_id` is `None` if the call names no id.
    """

    path: str
