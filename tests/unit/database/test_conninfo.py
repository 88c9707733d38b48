from __future__ import annotations

import os

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgdoc.database.conninfo import with_application_name


@pytest.fixture(autouse=True)
def no_name_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGAPPNAME", raising=False)
    monkeypatch.delenv("PGSERVICE", raising=False)


def name(conninfo: str, purpose: str = "") -> str:
    return str(conninfo_to_dict(with_application_name(conninfo, purpose))["application_name"])


def test_a_connection_is_named_after_what_it_serves():
    assert name("dbname=x") == "pgdoc"
    assert name("dbname=x", "hub docs") == "pgdoc hub docs"


def test_the_name_that_the_user_gave_comes_first(monkeypatch):
    assert name("application_name=shop", "hub docs") == "shop: pgdoc hub docs"
    assert name("postgresql:///x?application_name=my%20shop") == "my shop: pgdoc"
    monkeypatch.setenv("PGAPPNAME", "shop")
    assert name("dbname=x", "hub docs") == "shop: pgdoc hub docs"
    assert name("application_name=other", "hub docs") == "other: pgdoc hub docs"
    monkeypatch.delenv("PGAPPNAME")
    assert name("fallback_application_name=shop", "hub docs") == "shop: pgdoc hub docs"


def test_the_name_in_a_service_file_is_not_overridden(monkeypatch):
    assert conninfo_to_dict(with_application_name("service=shop", "hub docs")) == {
        "service": "shop",
        "fallback_application_name": "pgdoc hub docs",
    }
    assert name("service=shop application_name=other", "hub docs") == "other: pgdoc hub docs"
    monkeypatch.setenv("PGSERVICE", "shop")
    assert "application_name" not in conninfo_to_dict(with_application_name("", "hub docs"))


def test_a_long_name_loses_its_end_but_no_half_of_a_character():
    assert name("", "consumer " + 80 * "x") == "pgdoc consumer " + 48 * "x"
    assert name("", "consumer " + 40 * "é") == "pgdoc consumer " + 24 * "é"
    assert name(f"application_name={70 * 'x'}") == 63 * "x"


def test_bytes_that_are_not_utf_8_are_left_out(monkeypatch):
    monkeypatch.setenv("PGAPPNAME", os.fsdecode(b"caf\xe9"))
    assert name("", "hub docs") == "caf: pgdoc hub docs"


def test_the_rest_of_the_conninfo_stays():
    assert conninfo_to_dict(with_application_name("host=h port=7 user=u", "store docs")) == {
        "host": "h",
        "port": "7",
        "user": "u",
        "application_name": "pgdoc store docs",
    }
