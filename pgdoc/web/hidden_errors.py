"""Finds the error of a document that can't be read behind the error that pydantic or FastAPI raised for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgdoc.errors import PgdocError
from pgdoc.model.read_errors import last_read_error

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pgdoc_error_of"]

_PACKAGES: Final = {"fastapi", "pydantic", "pydantic_core"}


def pgdoc_error_of(exc: Exception) -> PgdocError | None:
    """Return what an exception says of pgdoc: itself, or the read error that it hides; `None` for any other.

    pydantic reads the fields of a document. What they raise, it makes a part of its own error's text, without a cause.
    So the last error that was noted is meant if the text has it.
    """
    if isinstance(exc, PgdocError):
        return exc
    last = last_read_error()
    if last is None or not any(cls.__module__.partition(".")[0] in _PACKAGES for cls in type(exc).__mro__):
        return None
    return last if any(str(last) in text for text in _texts_of(exc)) else None


def _texts_of(exc: Exception) -> Iterator[str]:
    yield str(exc)
    errors = getattr(exc, "errors", None)
    if callable(errors):  # of FastAPI's, the text has only their `repr`
        for each in errors():
            yield str(each["msg"])
