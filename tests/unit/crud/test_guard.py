"""The errors for a table that is not the collection that it was."""

from __future__ import annotations

import psycopg
import pytest

from pgdoc.crud.guard import replaced


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (psycopg.errors.UndefinedTable("relation does not exist"), "was dropped, renamed or replaced"),
        (psycopg.errors.ObjectNotInPrerequisiteState("no replica identity"), "docs.x: no replica identity. If it was"),
    ],
)
def test_an_error_that_can_have_another_reason_tells_it(error: psycopg.Error, told: str) -> None:
    assert told in str(replaced("docs.x", error))
