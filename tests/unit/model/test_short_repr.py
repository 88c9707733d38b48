from __future__ import annotations

from typing import Any

import pytest

from pgdoc.model.short_repr import short_repr


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Long:
    def __repr__(self) -> str:
        return "<long\n" + "x" * 1000 + ">"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("it's", '"it\'s"'),
        ("a\n\0\ud800", r"'a\n\x00\ud800'"),
        (10**20, "100000000000000000000"),
        pytest.param(-(10**5000), "<an integer of 16,610 bits>", id="an integer that Python does not write"),
        ([10**5000], "[<an integer of 16,610 bits>]"),
        ({"$gt": 5}, "{'$gt': 5}"),
    ],
)
def test_a_short_value_has_its_own_repr(value: Any, text: str) -> None:
    assert short_repr(value) == text


@pytest.mark.parametrize(
    "value", ["x" * 10_000, ["x" * 10_000] * 10_000, [10**4000], Long(), Broken(), {"a": Broken()}]
)
def test_a_long_or_failing_repr_becomes_one_short_line(value: Any) -> None:
    assert len(short_repr(value)) < 800
    assert "\n" not in short_repr(value)
