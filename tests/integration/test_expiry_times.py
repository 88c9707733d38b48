"""Which texts are times by which documents expire: as Python's `datetime.fromisoformat`, with an offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    import psycopg

OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 30), timezones=OFFSETS)  # noqa: DTZ001
FORMS = st.sampled_from(
    [
        lambda moment: moment.isoformat(),
        lambda moment: moment.isoformat(" "),
        lambda moment: moment.isoformat(timespec="minutes"),
        lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0"),
        lambda moment: moment.isoformat(timespec="milliseconds").replace(":", "", 0),
    ]
)
QUIET = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def time_of(sql: psycopg.Connection[Any], value: Any) -> datetime | None:
    sql.execute("SET timezone = 'UTC'")
    row = sql.execute("SELECT pgdoc.time_of(%s)", [Jsonb(value)]).fetchone()
    assert row is not None
    found: datetime | None = row[0]
    return found


@QUIET
@given(MOMENTS, FORMS)
def test_a_time_with_an_offset_is_what_python_reads(sql: psycopg.Connection[Any], moment: datetime, form: Any) -> None:
    text = form(moment)
    assert time_of(sql, text) == datetime.fromisoformat(text)


@QUIET
@given(st.text("0123456789-:TZ+. ,", max_size=32) | st.text(max_size=8))
def test_no_other_text_is_an_error(sql: psycopg.Connection[Any], text: str) -> None:
    found = time_of(sql, text.replace("\0", ""))
    assert found is None or found == datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "value",
    [
        "2026-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "2026-01-01T00:3099Z",
        "now",
        "infinity",
        "\u0662026-01-01T00:00:00Z",
        1_767_225_600,
        True,
        None,
        {"$date": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_value_that_is_no_sure_time_is_none(sql: psycopg.Connection[Any], value: Any) -> None:
    assert time_of(sql, value) is None


@pytest.mark.parametrize("setting", ["datestyle = 'german'", "datestyle = 'sql, dmy'", "timezone = 'Asia/Kabul'"])
def test_no_setting_changes_the_meaning(sql: psycopg.Connection[Any], setting: str) -> None:
    sql.execute(f"SET {setting}".encode())
    query = "SELECT pgdoc.time_of(%s) = make_timestamptz(2026, 2, 3, 4, 5, 6.789, 'UTC')"
    assert sql.execute(query, [Jsonb("2026-02-03T06:05:06.789+02:00")]).fetchone() == (True,)
    sql.execute("RESET ALL")


@pytest.mark.parametrize(
    ("data", "path", "expected"),
    [
        ({"a": {"b": "2026-01-01T00:00:00Z"}}, ["a", "b"], "2026-01-01"),
        ({"a": [{"b": "2026-01-02T00:00:00Z"}, {"b": ["2026-01-01T00:00:00Z"]}]}, ["a", "b"], "2026-01-01"),
        ({"a": ["x", "2026-01-01T00:00:00Z"]}, ["a"], "2026-01-01"),
        ({"a": ["x"]}, ["a"], "infinity"),
        ({"a": "x"}, ["a"], "infinity"),
        ({"a": {"c": 1}}, ["a"], "infinity"),
        ({"a": []}, ["a"], None),
        ({"a": [None]}, ["a"], None),
        ({"a": None}, ["a"], None),
        ({"a": 1}, ["a", "b"], None),
        ({}, ["a"], None),
    ],
)
def test_the_earliest_time_at_a_path_counts(
    sql: psycopg.Connection[Any], data: Any, path: list[str], expected: str | None
) -> None:
    sql.execute("SET timezone = 'UTC'")
    query = "SELECT pgdoc.expiry_time(%s, %s) IS NOT DISTINCT FROM %s::timestamptz"
    assert sql.execute(query, [Jsonb(data), path, expected]).fetchone() == (True,)
