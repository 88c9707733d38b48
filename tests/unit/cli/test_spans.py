"""Time spans on the command line."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from pgdoc.cli.spans import read_span


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0s", timedelta()),
        ("90 min", timedelta(minutes=90)),
        (" 2h ", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("3w", timedelta(weeks=3)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_a_span_has_a_number_and_a_unit(text: str, span: timedelta) -> None:
    assert read_span(text) == span


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 days", "36501d", "999999999w"])
def test_what_is_no_span_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time span"):
        read_span(text)
