from __future__ import annotations

import pytest

from pgdoc.database.catalog import REVISION, check_revision, check_server
from pgdoc.errors import CatalogMissing, CatalogVersionMismatch, UnsupportedServer


def test_what_is_needed_passes() -> None:
    check_server(150000, "UTF8")
    check_revision(REVISION)


def test_an_older_server_is_named() -> None:
    with pytest.raises(UnsupportedServer, match=r"PostgreSQL 14\.11.*15 or newer"):
        check_server(140011, "UTF8")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", None])
def test_another_encoding_is_named(encoding: str | None) -> None:
    with pytest.raises(UnsupportedServer, match=f"{encoding}.*ENCODING 'UTF8'"):
        check_server(160002, encoding)


def test_no_catalog_says_what_to_run() -> None:
    with pytest.raises(CatalogMissing, match="`pgdoc init`"):
        check_revision(None)


@pytest.mark.parametrize(("found", "cure"), [("0000", "pgdoc init"), ("0999", "newer pgdoc")])
def test_another_revision_says_what_to_do(found: str, cure: str) -> None:
    with pytest.raises(CatalogVersionMismatch, match=cure) as raised:
        check_revision(found)
    assert (raised.value.found_version, raised.value.needed_version) == (found, REVISION)
