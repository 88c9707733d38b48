"""The page of errors has an entry with a cure for each public error."""

from __future__ import annotations

import re

import pytest

import pgdoc
from pgdoc import errors
from tests.docs.pages import ROOT

_ENTRY = re.compile(r"^::: pgdoc\.(\w+)\n(.*?)(?=^:::|^## |\Z)", re.MULTILINE | re.DOTALL)
ENTRIES = dict(_ENTRY.findall((ROOT / "docs/reference/errors.md").read_text()))


def test_each_public_error_has_an_entry() -> None:
    classes = {name for name in pgdoc.__all__ if issubclass(type(getattr(pgdoc, name)), type)}
    public = {name for name in classes if issubclass(getattr(pgdoc, name), pgdoc.PgdocError)}
    assert public == set(errors.__all__) == set(ENTRIES)


@pytest.mark.parametrize("name", sorted(errors.__all__))
def test_an_entry_says_when_it_is_raised_whether_to_resume_and_the_cure(name: str) -> None:
    resumable = "yes" if getattr(errors, name).resumable else "no"
    assert re.search(r"^- \*\*Raised\*\* \w.*\.$", ENTRIES[name], re.MULTILINE)
    assert f"\n- **Resumable:** {resumable}\n" in ENTRIES[name]
    assert ("\n- **Retryable:** yes\n" in ENTRIES[name]) == getattr(errors, name).retryable
    assert re.search(r"^- \*\*Cure:\*\* \w.*\.$|^- \*\*Cure:\*\* `.*\.$", ENTRIES[name], re.MULTILINE)
