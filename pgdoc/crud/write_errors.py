"""The errors of writes that were not done, for single calls and for bulks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.crud.statements import check_count
from pgdoc.errors import (
    DatabaseError,
    DuplicateDocument,
    InvalidUpdate,
    SerializationFailure,
    UnreadableDocument,
    VersionConflict,
)
from pgdoc.model.json_codec import decode_comparable
from pgdoc.query.updates.apply import apply_update

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.query.updates.nodes import Update

__all__ = [
    "ATTEMPTS",
    "check_version",
    "compare_versions",
    "dropped",
    "duplicate",
    "name_index",
    "outdated",
    "outrun",
    "update_error",
]

ATTEMPTS = 10
"""How often a write is sent that should have matched but did not. Each time, another writer may have been first."""


def duplicate(subject: str, key: str) -> DuplicateDocument:
    """Return the error for a new document whose id exists."""
    return DuplicateDocument(
        f"{subject} already has a document {key!r}: replace or update it, or use another id", document_id=key
    )


def dropped(subject: str, key: str | None, obstacles: Sequence[str] = ()) -> DatabaseError:
    """Return the error for a write that the server accepted without writing a row; `None` for an id not known."""
    document = "a document" if key is None else f"document {key!r}"
    found = f"look at {', '.join(obstacles)}" if obstacles else "look at both"
    return DatabaseError(
        f"{document} of {subject} was not written: a row policy forbids this write to the role or hides the "
        f"document, or a trigger of the table drops the row: {found}, or write as another role"
    )


def name_index(error: DuplicateDocument, names: Iterable[str]) -> None:
    """Write the whole name of the violated index into the error: the server reports the first 22 bytes."""
    cut = error.index or ""
    found = [name for name in names if name.startswith(cut)] if len(cut.encode()) in {20, 21, 22} else []
    if len(found) == 1:
        error.args = (str(error).replace(repr(cut), repr(found[0]), 1),)
        error.index = found[0]


def outrun(subject: str, key: str) -> SerializationFailure:
    """Return the error for a write that met another writer of the same document each time."""
    return SerializationFailure(
        f"document {key!r} of {subject} was not written: other writers were first {ATTEMPTS} times: run the call again",
        sqlstate="40001",
    )


def outdated(subject: str, index: int) -> SerializationFailure:
    """Return the error for a write of a bulk that may have been dropped by what the table did not have before."""
    return SerializationFailure(
        f"write {index} of the bulk wrote no document of {subject}, and a trigger, rule or row policy that is new on "
        "the table may be the reason. Nothing of the bulk was stored: run it again",
        sqlstate="40001",
    )


def update_error(subject: str, key: str, text: str | None, update: Update) -> InvalidUpdate:
    """Return the error for an update that does not fit the document with this JSON text.

    The server only reports that it does not fit. Applying it again in Python finds the change at fault.
    """
    where = f"document {key!r} of {subject}"
    if text is None:
        return InvalidUpdate(f"{where}: the update does not fit, and PostgreSQL can't print the document")
    try:
        apply_update(update, decode_comparable(text), document_id=key)
    except InvalidUpdate as exc:
        return InvalidUpdate(f"{where}: {exc}", path=exc.path, operator=exc.operator)
    except UnreadableDocument as exc:
        return InvalidUpdate(f"{where}: the update does not fit, and {exc}")
    return InvalidUpdate(f"{where}: the update does not fit the document")


def compare_versions(subject: str, key: str, found: int | None, if_version: int | None) -> None:
    """Raise `VersionConflict` if the caller asked for a version that was not found; `None` stands for no document."""
    if if_version is None or if_version == found:
        return
    document = f"document {key!r} of {subject}"
    if found is None:
        message = f"{document} does not exist, so it is not at version {if_version}: insert it, or skip the change"
    else:
        message = f"{document} is at version {found}, not at version {if_version}: read it again and repeat the change"
    raise VersionConflict(message, found_version=found)


def check_version(if_version: int | None, *, upsert: bool = False) -> None:
    """Check the argument `if_version`, which excludes `upsert`."""
    if if_version is None:
        return
    check_count("if_version", if_version)
    if upsert:
        raise ValueError("upsert and if_version exclude each other: a document that does not exist has no version")
