"""Patterns that begin with a text find the same documents with an index as without, and use it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pgdoc import AsyncStore

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
async def test_a_pattern_finds_the_same_with_an_index(own_schema: dict[str, Any], collation: str | None) -> None:
    async with AsyncStore(**own_schema) as store:
        names = store["names"]
        await names.insert_many([(f"{number:03}", {"name": text, "n": number}) for number, text in enumerate(TEXTS)])

        async def ids(wanted: dict[str, Any], **arguments: Any) -> list[str]:
            return [document.id async for document in names.find(wanted, **arguments)]

        async def found() -> list[list[str]]:
            answers: list[list[str]] = []
            for pattern in PATTERNS:
                condition = pattern if isinstance(pattern, re.Pattern) else {"$regex": pattern}
                answers += [
                    await ids({"name": condition}, sort="_id"),
                    await ids({"name": {"$not": condition}}, sort="_id"),
                    await ids({"name": {"$in": [condition, "bob"]}}, sort="_id"),
                    await ids({"$or": [{"name": condition}, {"n": 3}]}, sort="_id"),
                    await ids({"name": condition}, sort="name"),
                    await ids({"name": condition}, sort="-name", limit=2),
                ]
            return answers

        before = await found()
        await names.create_index("name", collation=collation)
        await names.create_index("n")
        assert await found() == before
        assert any(before)


async def test_a_pattern_on_ids_uses_their_index(own_schema: dict[str, Any]) -> None:
    async with AsyncStore(**own_schema) as store:
        names = store["names"]
        await names.insert_many([(f"user-{number:05}", {"n": number}) for number in range(20_000)])
        await names.create_index("_id", name="ids")
        for pattern in ("^user-0123", r"^user-0123\d$"):
            assert "names.ids" in await names.explain({"_id": {"$regex": pattern}})
            assert await names.count({"_id": {"$regex": pattern}}) == 10
        plan = await names.explain({"_id": {"$regex": "^user-01234$"}})
        assert "Seq Scan" not in plan
        assert await names.count({"_id": {"$regex": "^user-01234$"}}) == 1
