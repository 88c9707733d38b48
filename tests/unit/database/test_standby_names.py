from __future__ import annotations

import pytest

from pgdoc.database.standby_names import lists_standby


@pytest.mark.parametrize(
    ("names", "application_name"),
    [
        ("*", "pgdoc hub docs"),
        ("*", ""),
        ('"*"', "pgdoc"),
        ("ANY 1 (*)", "pgdoc"),
        ("any 1(a,*)", "pgdoc"),
        ("FIRST 1 (a, *)", "pgdoc"),
        ("2 (a, b, pgdoc)", "pgdoc"),
        ("a, PGDOC", "pgdoc"),
        ("a,pgdoc", "PgDoc"),
        ('ANY 1 ("pgdoc hub docs", a)', "pgdoc hub docs"),
        ('"Shop: pgdoc hub docs"', "shop: pgdoc hub docs"),
        ('"a ""quoted"" name"', 'a "quoted" name'),
        ('"a, b (c)"', "a, b (c)"),
        ('ANY 1 ("", a)', ""),
        ("ANY 1 (1, 2)", "2"),
    ],
)
def test_names_that_match(names: str, application_name: str) -> None:
    assert lists_standby(names, application_name)


@pytest.mark.parametrize(
    ("names", "application_name"),
    [
        ("", "pgdoc"),
        ("", ""),
        ("a", ""),
        ("a, b", "pgdoc"),
        ("ANY 1 (a, b)", "pgdoc"),
        ("pgdoc", "pgdoc hub docs"),
        ('"pgdoc hub docs"', "pgdoc hub doc"),
        ('"a*"', "a"),
        ('"a, pgdoc"', "pgdoc"),
    ],
)
def test_names_that_do_not_match(names: str, application_name: str) -> None:
    assert not lists_standby(names, application_name)
