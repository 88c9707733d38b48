"""What became of a write that was not done: the errors that a caller gets, wherever it was found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.crud.statements import check_count
from pgdoc.errors import DuplicateDocument, InvalidUpdate, UnreadableDocument, VersionConflict
from pgdoc.model.json_codec import decode
from pgdoc.query.updates.apply import apply_update

if TYPE_CHECKING:
    from pgdoc.query.updates.nodes import Update

__all__ = ["check_version", "compare_versions", "duplicate", "update_error"]


def duplicate(subject: str, key: str) -> DuplicateDocument:
    """Say that a new document's id exists."""
    return DuplicateDocument(f"{subject} has a document {key!r} already: replace or update it", document_id=key)


def update_error(subject: str, key: str, text: str, update: Update) -> InvalidUpdate:
    """Find out in Python what the server did not say: which of the changes does not fit the document of this text."""
    where = f"document {key!r} of {subject}"
    try:
        apply_update(update, decode(text))
    except InvalidUpdate as exc:
        return InvalidUpdate(f"{where}: {exc}", path=exc.path, operator=exc.operator)
    except UnreadableDocument as exc:
        return InvalidUpdate(f"{where}: the update does not fit, and {exc}")
    return InvalidUpdate(f"the update does not fit {where}")


def compare_versions(subject: str, key: str, found: int | None, if_version: int | None) -> None:
    """Compare the version that is stored, `None` where there is no document, with the one that was asked for.

    Raises:
        VersionConflict: one was asked for, and it is another.
    """
    if if_version is None or if_version == found:
        return
    state = "is not there" if found is None else f"is at version {found}"
    raise VersionConflict(
        f"document {key!r} of {subject} {state}, not at version {if_version}: read it again", found_version=found
    )


def check_version(if_version: int | None, *, upsert: bool = False) -> None:
    """Refuse what is no version, or asks for one where there may be no document.

    Raises:
        InvalidInput, ValueError: it is, or does.
    """
    if if_version is None:
        return
    check_count("if_version", if_version)
    if upsert:
        raise ValueError("upsert and if_version exclude each other: a document that is not there has no version")
