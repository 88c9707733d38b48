from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from pgdoc.database.session_settings import (
    SESSION,
    given_options,
    local_statements,
    missing_settings,
    still_accepted,
    wanted_settings,
    with_settings,
)
from pgdoc.errors import UnsupportedServer
from pgdoc.runtime.encoding import in_utf8
from pgdoc.runtime.secrets import hidden

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_options_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGOPTIONS", "PGSERVICE", "PGCLIENTENCODING"):
        monkeypatch.delenv(name, raising=False)


def options(conninfo: str, settings: dict[str, str]) -> str:
    return str(conninfo_to_dict(with_settings(conninfo, settings))["options"])


def test_settings_come_after_the_users_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options("dbname=x", {"jit": "off"}) == "-c jit=off"
    assert options("options='-c a=b'", {"jit": "off"}) == "-c a=b -c jit=off"
    monkeypatch.setenv("PGOPTIONS", "-c c=d")
    assert options("dbname=x", {"jit": "off"}) == "-c c=d -c jit=off"
    assert options("options='-c a=b'", {"jit": "off"}) == "-c a=b -c jit=off"
    assert with_settings("dbname=x", {}) == "dbname=x"


def test_options_of_a_service_file_are_found_without_a_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "services"
    file.write_text("[shop]\nhost=192.0.2.1\nhostaddr=192.0.2.1\noptions=-c a=b\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    assert given_options("service=shop") == "-c a=b"
    assert given_options("service=shop options='-c c=d'") == "-c c=d"
    assert given_options("service=unknown") == ""
    monkeypatch.setenv("PGSERVICE", "shop")
    assert given_options("") == "-c a=b"


def test_the_users_options_decide_on_what_changes_no_answer() -> None:
    assert wanted_settings("dbname=x") == SESSION
    assert wanted_settings("options='-c jit=on'").keys() == SESSION.keys() - {"jit"}
    assert wanted_settings("options='-c gin_fuzzy_search_limit=5'") == SESSION


@pytest.mark.parametrize(
    ("refusal", "rest"),
    [
        ("FATAL:  unsupported startup parameter: options", {}),
        ("FATAL:  unsupported startup parameter in options: jit", {}),
        ("FATAL:  Feature not supported: RDS Proxy currently doesn't support command-line options.", {}),
        (
            'FATAL:  invalid value for parameter "client_connection_check_interval": ***',
            SESSION.keys() - {"client_connection_check_interval"},
        ),
        ('FATAL:  unrecognized configuration parameter "jit"', SESSION.keys() - {"jit"}),
        ('FATAL:  password authentication failed for user "app"', None),
    ],
)
def test_a_refused_setting_is_left_out(refusal: str, rest: set[str] | None) -> None:
    shown = hidden(refusal, {"options": "-c jit=off -c client_connection_check_interval=10s", "user": "app"})
    found = still_accepted(SESSION, shown)
    assert (found if found is None else found.keys()) == (rest if rest is None else set(rest))
    assert still_accepted({}, refusal) is None


def test_what_a_pooler_kept_is_set_in_transactions() -> None:
    fresh = {"jit": "on", "client_connection_check_interval": "0", "gin_fuzzy_search_limit": "0"}
    missing = missing_settings(SESSION, fresh)
    assert local_statements(missing) == [
        b"SET LOCAL jit = 'off'",
        b"SET LOCAL client_connection_check_interval = '10s'",
    ]
    assert missing_settings(SESSION, {**fresh, "jit": "off", "client_connection_check_interval": "1min"}) == {}
    assert missing_settings(SESSION, {"gin_fuzzy_search_limit": None}) == {}
    with pytest.raises(UnsupportedServer, match=r"gin_fuzzy_search_limit is 3 .* ALTER ROLE"):
        missing_settings(SESSION, {**fresh, "gin_fuzzy_search_limit": "3"})


def test_every_session_is_in_utf_8() -> None:
    assert conninfo_to_dict(in_utf8("client_encoding=LATIN1 dbname=x")) == {"client_encoding": "UTF8", "dbname": "x"}
