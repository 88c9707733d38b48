"""What pgdoc's errors are in HTTP: a status, and a body of RFC 9457. Without I/O."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, NamedTuple

import orjson

from pgdoc import errors
from pgdoc.changes.value_json import encode_json

__all__ = ["MEDIA_TYPE", "Problem", "problem_of"]

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1

# The first class in the order of the error's bases decides. What stands in neither table is 503 if it is `resumable`
# or `retryable`, so that the client can try again, and 500 otherwise.
STATUSES: Final[dict[type[errors.PgdocError], int]] = {
    errors.CollectionNotFound: 404,
    errors.ConsumerNotFound: 404,
    errors.DuplicateDocument: 409,
    errors.VersionConflict: 409,
    errors.HistoryLost: 410,
    errors.DocumentTooLarge: 413,
    errors.InvalidInput: 422,
    errors.InvalidResumeToken: 422,
    errors.CommitUnknown: 500,  # to send the request again may store it twice
    errors.StoreClosed: 503,  # the server shuts down
    errors.UpgradePrepared: 503,
    errors.WaitTimeout: 503,
}

# What a body says besides the error's name. The client sent these values itself, or could.
FIELDS: Final[dict[type[errors.PgdocError], tuple[str, ...]]] = {
    errors.DuplicateDocument: ("document_id", "paths"),
    errors.VersionConflict: ("found_version",),
    errors.DocumentTooLarge: ("document_id", "size", "max_size"),
    errors.SchemaViolation: ("document_id", "path", "rule"),
    errors.ModelViolation: ("document_id", "path"),
    errors.InvalidFilter: ("path", "operator"),
    errors.InvalidUpdate: ("path", "operator"),
    errors.InvalidInput: ("path",),
}

# What a body may say although the server is at fault: which document, and nothing of its data. The keys of a path are
# data if the model has a dict.
SERVER_FIELDS: Final[dict[type[errors.PgdocError], tuple[str, ...]]] = {
    errors.UnreadableDocument: ("collection", "document_id"),
}


class Problem(NamedTuple):
    """An error as HTTP tells it.

    Attributes:
        status: the status code.
        headers: those besides the media type.
        body: JSON text.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def problem_of(error: errors.PgdocError, *, has_if_match: bool = False, request_id: str | None = None) -> Problem:
    """Describe an error.

    A status of 500 or more comes without the error's message, which may name parts of the server, or quote the data of
    a document that can't be read.

    Args:
        error: the error; of a bulk, its first write that failed counts.
        has_if_match: whether the request had the header `If-Match`, which makes a conflict a 412.
        request_id: the request's id, for the body.
    """
    error = _cause_of(error)
    status = _status_of(error)
    if status == HTTPStatus.CONFLICT and has_if_match and isinstance(error, errors.VersionConflict):
        status = HTTPStatus.PRECONDITION_FAILED
    body: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": int(status), "error": type(error).__name__}
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        body["detail"] = str(error)
        body |= _fields_of(error, FIELDS)
    elif isinstance(error, errors.UnreadableDocument):
        body["detail"] = _detail_of(error)
        body |= _fields_of(error, SERVER_FIELDS)
    if request_id is not None:
        body["request_id"] = request_id
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Problem(status, headers, _encode(body))


def _cause_of(error: errors.PgdocError) -> errors.PgdocError:
    if isinstance(error, errors.BulkError) and isinstance(error.__cause__, errors.PgdocError):
        return error.__cause__
    if isinstance(error, errors.BulkIncomplete) and error.failures:
        return error.failures[0].error
    return error


def _status_of(error: errors.PgdocError) -> int:
    for cls in type(error).__mro__:
        if cls in STATUSES:
            return STATUSES[cls]
    return HTTPStatus.SERVICE_UNAVAILABLE if error.resumable or error.retryable else HTTPStatus.INTERNAL_SERVER_ERROR


def _detail_of(error: errors.UnreadableDocument) -> str:
    """Return what may be said of a document that can't be read: the message can quote its data."""
    document = "a document" if error.document_id is None else f"document {error.document_id!r}"
    where = "" if error.collection is None else f' of collection "{error.collection}"'
    fault = "is not valid" if isinstance(error, errors.InvalidModel) else "can't be read"
    return f"the stored data of {document}{where} {fault}"


def _fields_of(error: errors.PgdocError, table: dict[type[errors.PgdocError], tuple[str, ...]]) -> dict[str, Any]:
    names = next((table[cls] for cls in type(error).__mro__ if cls in table), ())
    found = {name: getattr(error, name) for name in names}
    return {name: value for name, value in found.items() if value is not None and value != ()}


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate in an id that the client sent
        return encode_json({name: str(value).encode(errors="replace").decode() for name, value in body.items()})
