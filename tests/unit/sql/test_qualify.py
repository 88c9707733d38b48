from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgdoc.sql import statement
from pgdoc.sql.qualify import qualified

FOLDER = Path(__file__).parents[3] / "pgdoc" / "sql"
BLOCKS = [
    (path.stem, name)
    for path in sorted(FOLDER.glob("*.sql"))
    for name in re.findall(r"^-- name: (\w+)$", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a = 'x = y'", "a OPERATOR(pg_catalog.=) 'x = y'"),
        ("a - b = c AND d || e", "a {-} b {=} c AND d {||} e"),
        ("now()::text::bigint[]", "pg_catalog.now()::pg_catalog.text::bigint[]"),
        ("coalesce(min(a), -1)", "coalesce(pg_catalog.min(a), -1)"),
        ("a - -1", "a {-} -1"),
        ("SELECT *, count(*), t.* FROM t", "SELECT *, pg_catalog.count(*), t.* FROM t"),
        ("a * b", "a {*} b"),
        ("SET a = b = c, (d, e) = (f, g) WHERE h = i", "SET a = b {=} c, (d, e) = (f, g) WHERE h {=} i"),
        ("FROM pg_class, pgdoc.f(a) AS g(x)", "FROM pg_catalog.pg_class, pgdoc.f(a) AS g(x)"),
        ('id COLLATE "C" > %s', 'id COLLATE pg_catalog."C" {>} %s'),
        ("'f'::\"char\"", "'f'::pg_catalog.\"char\""),
        ("%(to)s::pg_lsn %% 2", "%(to)s::pg_catalog.pg_lsn %% 2"),
        ("a ?& %s AND {change} <> data", "a {?&} %s AND {change} {<>} data"),
        ("E'\\'=' ~ a", "E'\\'=' {~} a"),
        ("CASE WHEN a THEN b[i + 1] END", "CASE WHEN a THEN b[i {+} 1] END"),
    ],
)
def test_everything_of_postgresql_is_qualified(written: str, meant: str) -> None:
    expected = re.sub(r"\{([^a-z]+)\}", r"OPERATOR(pg_catalog.\1)", meant)
    assert qualified(written) == expected
    assert qualified(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a IN (b)",
        "a NOT IN (b)",
        "a BETWEEN b AND c",
        "a LIKE b",
        "a NOT ILIKE b",
        "a IS DISTINCT FROM b",
        "NULLIF(a, b)",
        "CASE a WHEN b THEN c END",
        "CASE (a) WHEN b THEN c END",
        "CASE f(a) WHEN b THEN c END",
        "a JOIN b USING (c)",
        "a SIMILAR TO b",
    ],
)
def test_what_finds_an_operator_by_its_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="finds"):
        qualified(text)


@pytest.mark.parametrize("text", ["a = b + c", "a || b * c", "a OPERATOR(pg_catalog.=) b - c", "a < b -> c"])
def test_operators_that_would_bind_otherwise_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="brackets"):
        qualified(text)


@pytest.mark.parametrize("text", ["- a", "(~ a)", "a = - b"])
def test_an_operator_before_its_only_operand_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no left operand"):
        qualified(text)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot read"):
        qualified("a = 'b")


@pytest.mark.parametrize(("file", "name"), BLOCKS)
def test_every_block_is_qualified_when_it_is_read(file: str, name: str) -> None:
    text = statement(file, name)
    assert qualified(text) == text
