"""The errors of writes that were not done, for single calls and for bulks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.crud.statements import check_count
from pgdoc.errors import DatabaseError, DuplicateDocument, InvalidUpdate, UnreadableDocument, VersionConflict
from pgdoc.model.json_codec import decode
from pgdoc.query.updates.apply import apply_update

if TYPE_CHECKING:
    from pgdoc.query.updates.nodes import Update

__all__ = ["ATTEMPTS", "check_version", "compare_versions", "dropped", "duplicate", "update_error"]

ATTEMPTS = 10
"""How often a write is sent that should have matched but did not. Each time, another writer may have been first."""


def duplicate(subject: str, key: str) -> DuplicateDocument:
    """Return the error for a new document whose id exists."""
    return DuplicateDocument(
        f"{subject} already has a document {key!r}: replace or update it, or use another id", document_id=key
    )


def dropped(subject: str, key: str) -> DatabaseError:
    """Return the error for a write that the server accepted without writing a row, again and again."""
    return DatabaseError(
        f"document {key!r} of {subject} was not written: a row policy forbids this write to the role or hides the "
        "document, or a trigger of the table drops the row; check both, or write as another role"
    )


def update_error(subject: str, key: str, text: str | None, update: Update) -> InvalidUpdate:
    """Return the error for an update that does not fit the document with this JSON text.

    The server only reports that it does not fit. Applying it again in Python finds the change at fault.
    """
    where = f"document {key!r} of {subject}"
    if text is None:
        return InvalidUpdate(f"{where}: the update does not fit, and PostgreSQL can't print the document")
    try:
        apply_update(update, decode(text))
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
