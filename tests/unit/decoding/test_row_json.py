"""The JSON of values from their output texts. That it agrees with `to_json` is tested on a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdoc.decoding.row_json import form_of, form_of_built_in, json_of_value

items = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
odd_items = st.sampled_from([None, "NULL", "null", "", '"', "\\", "{", "}", ",", ";", "[0:1]={a}", " a ", "a\nb"])


def array_text(array: Any, delimiter: str) -> str:
    """Write an array as PostgreSQL's `array_out` does."""
    if isinstance(array, list):
        return f"{{{delimiter.join(array_text(item, delimiter) for item in array)}}}"
    if array is None:
        return "NULL"
    needs_quotes = (
        array == "" or array.upper() == "NULL" or any(char in f'"\\{{}}{delimiter} \t\n\r\v\f' for char in array)
    )
    escaped = array.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if needs_quotes else array


@st.composite
def arrays(draw: st.DrawFn) -> list[Any]:
    """Return an array of one to three dimensions; those inside have one length."""
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))

    def filled(depth: int) -> Any:
        if depth == len(lengths):
            return draw(items | odd_items)
        return [filled(depth + 1) for _ in range(lengths[depth])]

    found: list[Any] = filled(0)
    return found


@given(arrays(), st.sampled_from(",;"), st.booleans())
def test_an_array_is_written_as_its_items(array: list[Any], delimiter: str, has_bounds: bool) -> None:
    text = array_text(array, delimiter)
    depth = 0
    item: Any = array
    while isinstance(item, list):
        depth, item = depth + 1, item[0]
    bounds = "[-2:0]" * depth + "=" if has_bounds else ""

    assert orjson.loads(json_of_value(bounds + text, form_of(f"text[{delimiter}]"))) == array


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("text[,]", "{}", "[]"),
        ("number[,]", "{1.50,NaN,NULL,-0}", '[1.50,"NaN",null,-0]'),
        ("bool[,]", "{t,f,NULL}", "[true,false,null]"),
        ("json[,]", '{"{\\"a\\": [1.10]}",NULL,null}', '[{"a": [1.10]},null,null]'),
        ("timestamp[,]", '{"2026-11-29 07:08:51",infinity}', '["2026-11-29T07:08:51","infinity"]'),
        ("text[;]", "{(3,4),(1,2);(7,8),(5,6)}", '["(3,4),(1,2)","(7,8),(5,6)"]'),
        ("text[,]", '[0:1][5:5]={{"a"},{NULL}}', '[["a"],[null]]'),
        ("number", "NaN", '"NaN"'),
        ("number", "-Infinity", '"-Infinity"'),
        ("number", "1500.50", "1500.50"),
        ("number", "1e+38", "1e+38"),
        ("number", "-0", "-0"),
        ("bool", "t", "true"),
        ("bool", "f", "false"),
        ("json", '{"a":  1, "a": 2}', '{"a":  1, "a": 2}'),
        ("int2vector", "1 2", "[1,2]"),
        ("oidvector", "1 2", '["1","2"]'),
        ("oidvector", "", "[]"),
        ("timestamp", "2026-11-29 07:08:51.8", '"2026-11-29T07:08:51.8"'),
        ("timestamp", "0044-03-15 12:00:00 BC", '"0044-03-15T12:00:00 BC"'),
        ("timestamp", "-infinity", '"-infinity"'),
        ("timestamptz", "2026-11-29 07:08:51.817473+00", '"2026-11-29T07:08:51.817473+00:00"'),
        ("timestamptz", "0044-03-15 12:00:00+00 BC", '"0044-03-15T12:00:00+00:00 BC"'),
        ("timestamptz", "20000-01-01 00:00:00+00", '"20000-01-01T00:00:00+00:00"'),
        ("timestamptz", "infinity", '"infinity"'),
        ("text", '\x01\x1f\x7f"\\/é\u2028', json.dumps('\x01\x1f\x7f"\\/é\u2028', ensure_ascii=False)),
    ],
)
def test_a_value_is_written_by_its_form(form: str, text: str, expected: str) -> None:
    assert json_of_value(text, form_of(form)) == expected
    assert json_of_value(None, form_of(form)) == "null"


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_digits(number: Decimal) -> None:
    text = str(number)
    written = json_of_value(text, form_of("number"))

    assert written == text
    assert json.loads(written, parse_float=Decimal, parse_int=Decimal) == number


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 (without a zone)
def test_times_are_iso_8601(moment: datetime) -> None:
    text = moment.isoformat(" ")
    if moment.microsecond:
        text = text.rstrip("0")  # as PostgreSQL prints it

    assert datetime.fromisoformat(orjson.loads(json_of_value(text, form_of("timestamp")))) == moment
    with_zone = datetime.fromisoformat(orjson.loads(json_of_value(f"{text}+00", form_of("timestamptz"))))
    assert with_zone == moment.replace(tzinfo=UTC)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_text_is_what_it_was(text: str) -> None:
    assert json.loads(json_of_value(text, form_of("text"))) == text


def test_a_type_that_is_not_built_in_is_text() -> None:
    assert form_of_built_in(99_999) == form_of("text")
    assert form_of_built_in(1020) == form_of("text[;]")  # box[]
