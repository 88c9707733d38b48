# Written by .ci/twins.py from tests/integration/_async/test_patterns.py: change that file, and run it.
"""Patterns that begin with a text find the same documents with an index as without, and use it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pgdoc import Store

TEXTS = [
    "ann",
    "anna",
    "Anna",
    "ANNA\n",
    "an",
    "anz",
    "a.b",
    "axb",
    "é",
    "éa",
    "\ud7ff",
    "\ud7ffx",
    "\ue000",
    "\U0010ffff",
    "\U0010ffffx",
    "",
    "%",
    "a%",
    "straße",
    "STRASSE",
    "x" * 78 + "a",
    "x" * 90,
    ["anna", "bob"],
    ["a", "b"],
    ["zz", ["anna"]],
    [],
    {"anna": "anna"},
    5,
    None,
    True,
]
PATTERNS: list[Any] = [
    "^ann",
    "^anna$",
    r"\Aann.$",
    "^a\\.b$",
    "^an(n|z)",
    "^ann?a",
    "^(?:an)n+a*",
    "^é",
    "^\ud7ff",
    "^\U0010ffff",
    "^a%",
    "^$",
    "^",
    "^" + "x" * 78,
    "^" + "x" * 78 + "a$",
    "^" + "x" * 85 + "x*$",
    re.compile("^ANNA", re.IGNORECASE),
    re.compile("^stra[sß]", re.IGNORECASE),
    re.compile("^anna$", re.IGNORECASE | re.MULTILINE),
]


@pytest.mark.parametrize("collation", [None, "ci", "ci_ai"])
def test_a_pattern_finds_the_same_with_an_index(own_schema: dict[str, Any], collation: str | None) -> None:
    with Store(**own_schema) as store:
        names = store["names"]
        names.insert_many([(f"{number:03}", {"name": text, "n": number}) for number, text in enumerate(TEXTS)])

        def ids(wanted: dict[str, Any], **arguments: Any) -> list[str]:
            return [document.id for document in names.find(wanted, **arguments)]

        def found() -> list[list[str]]:
            answers: list[list[str]] = []
            for pattern in PATTERNS:
                condition = pattern if isinstance(pattern, re.Pattern) else {"$regex": pattern}
                answers += [
                    ids({"name": condition}, sort="_id"),
                    ids({"name": {"$not": condition}}, sort="_id"),
                    ids({"name": {"$in": [condition, "bob"]}}, sort="_id"),
                    ids({"$or": [{"name": condition}, {"n": 3}]}, sort="_id"),
                    ids({"name": condition}, sort="name"),
                    ids({"name": condition}, sort="-name", limit=2),
                ]
            return answers

        before = found()
        names.create_index("name", collation=collation)
        names.create_index("n")
        assert found() == before
        assert any(before)


def test_a_pattern_on_ids_uses_their_index(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        names = store["names"]
        names.insert_many([(f"user-{number:05}", {"n": number}) for number in range(20_000)])
        names.create_index("_id", name="ids")
        for pattern in ("^user-0123", r"^user-0123\d$"):
            assert "names.ids" in names.explain({"_id": {"$regex": pattern}})
            assert names.count({"_id": {"$regex": pattern}}) == 10
        plan = names.explain({"_id": {"$regex": "^user-01234$"}})
        assert "Seq Scan" not in plan
        assert names.count({"_id": {"$regex": "^user-01234$"}}) == 1
