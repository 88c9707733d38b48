from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pgdoc.errors import StreamError
from pgdoc.runtime.faults import internal_error

if TYPE_CHECKING:
    import pytest


def test_an_unexpected_exception_is_logged_with_its_traceback_and_becomes_an_error_to_report(
    caplog: pytest.LogCaptureFixture,
):
    try:
        int("o-1")
    except ValueError as exc:
        cause = exc
        error = internal_error("the hub failed", exc, logging.getLogger("pgdoc.hub"))
    assert isinstance(error, StreamError)
    assert str(error) == f"the hub failed: {cause!r}; this is a bug in pgdoc, please report it"
    assert error.__cause__ is cause
    assert not error.resumable
    (record,) = caplog.records
    assert (record.name, record.levelname, record.message) == ("pgdoc.hub", "ERROR", "the hub failed")
    assert "Traceback" in caplog.text
